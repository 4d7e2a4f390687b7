/*
 * A call: two to six people, each connected to each other one. The server knows nothing of it.
 *
 * The call has a random id that is in every message about it. An offer with our own call's id comes from
 * somebody whom one of us let in, and is answered without ringing. Each member tells the others on the
 * data channels who is connected to them; of two who lack each other, the one with the greater name offers.
 * Whoever answers decides the id: a caller who is alone takes it over.
 */

import { Peer, sdpOf } from './peer.js';

export const MOST_PEOPLE = 6;
const UNANSWERED_MS = 60_000; // long enough to find the phone
const CONNECTING_MS = 30_000; // long enough to try every way through a firewall
const RETURN_MS = 10_000; // for a line to the server to come back before the call stands
const REDIAL_MS = 700;
const LEFT_MS = 3_000; // how long lists of members may still name somebody who has left
const MESH_DIALS = 24; // by members' lists, in one call

export class Group {
  id = randomId();
  peers = new Map();
  /** Somebody has been connected in this call. */
  stood = false;
  /** What we say of ourselves: `{ muted, camera, screen }`. */
  #own; #media; #me; #configuration; #send; #on;
  #left = new Map(); #dials = MESH_DIALS; #timers = new Map();

  /** `send(signalType, toUser, fields)`; `on` holds `change()`, `joined(name)`, `gone(peer, why)`, `text(name, text)`. */
  constructor({ me, configuration, media, own, send, on }) {
    this.#me = me;
    this.#configuration = configuration;
    this.#media = media;
    this.#own = own;
    this.#send = send;
    this.#on = on;
  }

  get isFull() {
    return this.peers.size >= MOST_PEOPLE - 1 || [...this.peers.values()].some((peer) => peer.old);
  }

  get connected() {
    return [...this.peers.values()].filter((peer) => peer.connected);
  }

  /** Asks somebody to join, who will be rung. */
  invite(name) {
    this.#left.delete(name);
    this.#dial(name, { size: this.connected.length + 1 });
  }

  /** Lets a caller in. */
  accept(name, { offer, candidates }) {
    this.#left.delete(name);
    this.#remove(name);
    const peer = this.#add(name);
    peer.old = offer.group === undefined;
    for (const message of [offer, ...candidates]) peer.receive(message);
    this.#limit(name, CONNECTING_MS, 'no-route');
  }

  /** Takes a message if it belongs to this call, and says whether it did. */
  receive(from, message) {
    const peer = this.peers.get(from);
    switch (message.signalType) {
      case 'offer': return this.#takeOffer(peer, from, message);
      case 'leave': return this.#takeLeave(peer, message);
      case 'answer': return peer !== undefined && this.#takeAnswer(peer, message);
      default:
        if (peer === undefined || !this.#belongs(peer, message)) return false;
        peer.receive(message);
        return true;
    }
  }

  /** The server could not deliver our `signalType`. */
  undelivered(name, signalType, code) {
    const peer = this.peers.get(name);
    if (!peer || (signalType !== 'offer' && signalType !== 'answer')) return;
    if (peer.connected) return peer.withdraw();
    if (peer.returnBy > Date.now()) return this.#redialSoon(peer);
    this.drop(name, code);
  }

  /** Our own line is back. The server has told everybody that we left; their lines may be away as well. */
  lineIsBack() {
    for (const peer of [...this.peers.values()]) {
      peer.returnBy = Date.now() + RETURN_MS;
      if (peer.connected) peer.restart();
      else if (peer.dialed) this.#dial(peer.name, peer.dialed);
    }
  }

  use(media, own) {
    this.#media = media;
    this.#own = own;
    for (const peer of this.peers.values()) peer.use(media);
    this.#tell();
  }

  /** Sends a line of chat to all who can read it. */
  text(text) {
    return [...this.peers.values()].map((peer) => peer.text(text)).includes(true);
  }

  /** `left`: by the person's own wish, so that an offer with this call's id rings from now on. */
  drop(name, why, left = false) {
    const peer = this.peers.get(name);
    if (!this.#remove(name)) return;
    if (left) this.#left.set(name, Date.now());
    this.#tell();
    this.#on.gone(peer, why);
  }

  leave(reason = 'hangup') {
    for (const peer of this.peers.values()) {
      this.#send('leave', peer.name, { reason, group: this.id });
      this.#remove(peer.name, true);
    }
  }

  #add(name) {
    const on = {
      open: () => this.#tell(),
      change: (peer) => this.#changed(peer),
      text: (peer, text) => this.#on.text(peer.name, text),
      bye: (peer) => this.drop(peer.name, 'hangup', true),
      lost: (peer) => this.#giveUp(peer, peer.connected ? 'lost' : 'no-route'),
    };
    const send = (signalType, fields) => this.#send(signalType, name, { group: this.id, ...fields });
    const [media, configuration] = [this.#media, this.#configuration];
    const peer = new Peer({ name, polite: this.#me > name, configuration, media, send, on });
    this.peers.set(name, peer);
    for (const each of this.peers.values()) each.crowd(this.peers.size + 1);
    return peer;
  }

  #dial(name, fields) {
    const former = this.peers.get(name);
    this.#remove(name);
    const peer = this.#add(name);
    peer.dialed = fields;
    peer.returnBy = former?.returnBy;
    peer.dial(fields);
    this.#limit(name, fields.mesh ? CONNECTING_MS : UNANSWERED_MS, fields.mesh ? 'no-route' : 'no-answer');
    this.#on.change();
  }

  #remove(name, bye = false) {
    const peer = this.peers.get(name);
    clearTimeout(this.#timers.get(name));
    clearTimeout(peer?.redial);
    peer?.close(bye);
    return this.peers.delete(name);
  }

  #limit(name, ms, why) {
    clearTimeout(this.#timers.get(name));
    this.#timers.set(name, setTimeout(() => this.#giveUp(this.peers.get(name), why), ms));
  }

  #giveUp(peer, why) {
    if (this.peers.get(peer?.name) !== peer) return;
    this.#send('leave', peer.name, { reason: 'hangup', group: this.id });
    this.drop(peer.name, why);
  }

  #changed(peer) {
    if (this.peers.get(peer.name) !== peer) return;
    if (peer.connected && !peer.counted) {
      peer.counted = this.stood = true;
      clearTimeout(this.#timers.get(peer.name));
      this.#tell();
      this.#on.joined(peer.name);
    }
    this.#meet(peer.far.members);
    this.#on.change();
  }

  /** Who is connected to somebody we talk to belongs to the call as well. */
  #meet(members) {
    for (const name of members) {
      if (name === this.#me || this.peers.has(name) || name > this.#me) continue;
      if (Date.now() - (this.#left.get(name) ?? 0) < LEFT_MS) continue;
      if (this.isFull || this.#dials === 0) return;
      this.#dials -= 1;
      this.#dial(name, { mesh: true });
    }
    for (const name of members) {
      if (Date.now() - (this.#left.get(name) ?? 0) >= LEFT_MS) this.#left.delete(name);
    }
  }

  #tell() {
    const members = this.connected.filter((peer) => !peer.old).map((peer) => peer.name);
    for (const peer of this.peers.values()) {
      peer.tell({ ...this.#own, members });
      peer.crowd(this.peers.size + 1);
    }
  }

  #takeOffer(peer, from, message) {
    const ours = message.group === this.id;
    if (!peer) {
      if (!ours || this.#left.has(from) || this.isFull) return false;
      this.accept(from, { offer: message, candidates: [] });
      return true;
    }
    if (peer.dialed && !peer.met) {
      // We called each other at once: the smaller name's offer stands.
      if (this.#me > from) this.accept(from, { offer: message, candidates: [] });
      return true;
    }
    if (peer.continuedBy(message) && this.#belongs(peer, message)) {
      peer.receive(message);
      return true;
    }
    if (!ours) return false;
    this.accept(from, { offer: message, candidates: [] }); // with a new connection, in the same call
    return true;
  }

  #takeAnswer(peer, message) {
    if (!peer.met) {
      peer.old = message.group === undefined;
      const isOther = !peer.old && message.group !== this.id;
      if (isOther && !peer.isAnsweredBy(message)) return true; // late, from a former call
      if (isOther && !this.#adopt(message)) {
        this.#send('leave', peer.name, { reason: 'busy', group: message.group });
        this.drop(peer.name, 'busy');
        return true;
      }
    }
    if (!this.#belongs(peer, message)) return false;
    if (sdpOf(message) === '') return true;
    peer.receive(message);
    if (!peer.connected) this.#limit(peer.name, CONNECTING_MS, 'no-route');
    return true;
  }

  /** Whoever answers is in another call. Alone, we join that one; else it must stay apart. */
  #adopt({ group }) {
    const alone = this.peers.size === 1;
    if (!alone || typeof group !== 'string' || group.length > 64) return false;
    this.id = group;
    return true;
  }

  #takeLeave(peer, { group, reason }) {
    if (!peer) return false;
    if (group === undefined && reason === undefined && !(peer.old && !peer.connected)) {
      this.#lineLost(peer);
      return true;
    }
    if (!this.#belongs(peer, { group }) && !(peer.dialed && !peer.met)) return false;
    if (group !== undefined && group !== this.id) return true; // about a former call
    this.drop(peer.name, typeof reason === 'string' ? reason : 'hangup', true);
    return true;
  }

  /** The server's own `leave`: this person's line is gone, which is not the end of anything yet. */
  #lineLost(peer) {
    if (peer.connected) return peer.watch();
    peer.returnBy = Date.now() + RETURN_MS;
    if (peer.dialed) this.#redialSoon(peer);
    else this.#limit(peer.name, RETURN_MS, 'gone');
  }

  #redialSoon(peer) {
    clearTimeout(peer.redial);
    peer.redial = setTimeout(() => this.#dial(peer.name, peer.dialed), REDIAL_MS);
  }

  #belongs(peer, { group }) {
    return group === this.id || (group === undefined && (peer.old || !peer.met));
  }
}

/** 128 bits that nobody can guess: who knows them was told by a member. */
function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, '0')).join('');
}
