/*
 * A call: two to six people, each connected to every other (a full mesh). The server knows no groups.
 *
 * The call has a random id that is in every message about it. An offer with our own call's id comes from
 * somebody whom a member let in, and is answered without ringing. Each member lists its connected peers on
 * the data channels. If two members are not connected yet, the one with the greater name sends an offer.
 * The callee's id is used: a caller who is in a call with nobody else adopts it from the answer.
 */

import { Peer, sdpOf } from './peer.js';

const MOST_PEOPLE = 6;
const UNANSWERED_MS = 60_000; // long enough to find the phone
const CONNECTING_MS = 30_000; // long enough to try every way through a firewall
const RETURN_MS = 10_000; // to reconnect to the server, while the call is not established yet
const REDIAL_MS = 700;
const LEFT_MS = 3_000; // how long lists of members may still name somebody who has left
const LONGEST_ID = 64; // other pages may make ids of their own
const MESH_DIALS = 24; // by members' lists, in one call

export class Group {
  id = crypto.randomUUID(); // cannot be guessed, so only those whom a member told know it
  peers = new Map();
  /** The call is established: somebody has been connected in it. */
  stood = false;
  #me; #configuration; #media; #send; #on; #left = new Map(); #dials = MESH_DIALS;

  /**
   * `media` is our own; `send(signalType, toUser, fields)`; `on` holds `change()`, `joined(name)`,
   * `gone(peer, why)`, `removed(name)` by whom we were removed, and `text(name, text)`.
   */
  constructor({ me, configuration, media, send, on }) {
    [this.#me, this.#configuration, this.#media, this.#send, this.#on] = [me, configuration, media, send, on];
  }

  get all() {
    return [...this.peers.values()];
  }

  get connected() {
    return this.all.filter((peer) => peer.connected);
  }

  get isFull() {
    return this.peers.size >= MOST_PEOPLE - 1 || this.all.some((peer) => peer.old);
  }

  /** Asks somebody to join, who will be rung. */
  invite(name) {
    this.#left.delete(name);
    this.#dial(name, { size: this.connected.length + 1 });
  }

  /** Answers a caller. If this call has nobody else yet, we join the caller's; else the caller joins ours. */
  accept(name, { offer, candidates }) {
    if (this.peers.size === 0 && typeof offer.group === 'string') this.id = offer.group.slice(0, LONGEST_ID);
    this.#left.delete(name);
    this.#remove(name);
    const peer = this.#add(name);
    peer.old = offer.group === undefined;
    for (const message of [offer, ...candidates]) peer.receive(message);
    this.#limit(peer, CONNECTING_MS, 'no-route');
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
    if (peer.connected) return; // this person asks for a new offer when their line is back
    if (peer.dialed && peer.returnBy > Date.now()) return this.#redialSoon(peer);
    this.drop(name, code);
  }

  /** We have reconnected. The server has told everybody that we left, and may have lost them as well. */
  lineIsBack() {
    for (const peer of this.all) {
      peer.returnBy = Date.now() + RETURN_MS;
      if (peer.connected) peer.restart();
      else if (peer.dialed) this.#dial(peer.name, peer.dialed);
    }
  }

  /** Tells everybody our state and members, and sends our current tracks. */
  tell() {
    const members = this.connected.filter((peer) => !peer.old).map((peer) => peer.name);
    for (const peer of this.all) {
      peer.tell({ state: { ...this.#media.own, members } });
      peer.useMedia(this.peers.size + 1);
    }
  }

  /** Sends a line of chat to all who can read it. */
  text(text) {
    return this.all.map((peer) => peer.tell({ text })).includes(true);
  }

  /** `left`: the person hung up or was removed, so that an offer with this call's id rings from now on. */
  drop(name, why, left = false) {
    const peer = this.peers.get(name);
    if (!this.#remove(name)) return;
    if (left) this.#left.set(name, { id: this.id, at: Date.now() });
    this.tell();
    this.#on.gone(peer, why);
  }

  /** Gives the call a new id, which only the others learn, so that the removed person has to ring. */
  remove(name) {
    const id = crypto.randomUUID();
    for (const peer of this.all) if (peer.name !== name) peer.tell({ regroup: { id, without: name } });
    this.#regroup(id, name, 'removed');
  }

  leave() {
    for (const peer of this.all) {
      this.#send('leave', peer.name, { reason: 'hangup', group: this.id });
      this.#remove(peer.name, true);
    }
  }

  #regroup(id, without, reason) {
    if (this.peers.has(without)) this.#send('leave', without, { reason, group: this.id });
    this.drop(without, 'removed', true);
    this.id = id;
    // Another member may let this person in again before our list of members counts.
    setTimeout(() => this.all.forEach((peer) => this.#meet(peer.far.members)), LEFT_MS);
    for (const { name, connected, dialed } of this.all) if (!connected && dialed) this.#dial(name, dialed);
  }

  #add(name) {
    const on = {
      open: () => this.tell(),
      change: (peer) => this.#changed(peer),
      connected: (peer) => this.#joined(peer),
      heard: (peer, message) => this.#heard(peer, message),
      lost: (peer) => this.#giveUp(peer, peer.connected ? 'lost' : 'no-route'),
    };
    const send = (signalType, fields) => this.#send(signalType, name, { group: this.id, ...fields });
    const peer = new Peer({ name, configuration: this.#configuration, media: this.#media, send, on });
    this.peers.set(name, peer);
    this.tell();
    return peer;
  }

  #dial(name, fields) {
    const { returnBy = 0 } = this.peers.get(name) ?? {};
    this.#remove(name);
    const peer = this.#add(name);
    peer.returnBy = returnBy;
    peer.dial(fields);
    if (fields.mesh) this.#limit(peer, CONNECTING_MS, 'no-route');
    else this.#limit(peer, UNANSWERED_MS, 'no-answer');
    this.#on.change();
  }

  #remove(name, bye = false) {
    const peer = this.peers.get(name);
    clearTimeout(peer?.timer);
    peer?.close(bye);
    return this.peers.delete(name);
  }

  #limit(peer, ms, why) {
    clearTimeout(peer.timer);
    peer.timer = setTimeout(() => this.#giveUp(peer, why), ms);
  }

  #giveUp(peer, why) {
    if (this.peers.get(peer.name) !== peer) return;
    this.#send('leave', peer.name, { reason: 'hangup', group: this.id });
    this.drop(peer.name, why);
  }

  #changed(peer) {
    if (this.peers.get(peer.name) !== peer) return;
    this.#meet(peer.far.members);
    this.#on.change();
  }

  #joined(peer) {
    this.stood = true;
    clearTimeout(peer.timer);
    this.tell();
    this.#on.joined(peer.name);
  }

  /** Members whom a peer lists belong to the call: dials those we lack, if our name is the greater one. */
  #meet(members) {
    for (const name of members) {
      const hasJustLeft = Date.now() - (this.#left.get(name)?.at ?? 0) < LEFT_MS;
      if (!hasJustLeft) this.#left.delete(name);
      if (hasJustLeft || name >= this.#me || this.peers.has(name)) continue;
      if (this.isFull || this.#dials === 0) return;
      this.#dials -= 1;
      this.#dial(name, { mesh: true });
    }
  }

  /** What a member says on the data channel. */
  #heard(peer, { state, text, bye, regroup }) {
    if (bye === true) return this.drop(peer.name, 'hangup', true);
    if (typeof text === 'string') this.#on.text(peer.name, text);
    if (typeof regroup?.id === 'string') {
      this.#regroup(regroup.id.slice(0, LONGEST_ID), regroup.without, 'hangup');
    }
    if (typeof state !== 'object' || state === null) return;
    const members = Array.isArray(state.members) ? state.members.slice(0, MOST_PEOPLE) : [];
    peer.far = {
      members: members.filter((name) => typeof name === 'string'),
      muted: state.muted === true,
      camera: state.camera === true,
      screen: state.screen === true,
    };
    this.#changed(peer);
  }

  #takeOffer(peer, from, message) {
    const isCrossing = peer?.dialed && !peer.met;
    // We called each other at once: the smaller name's offer stands.
    if (isCrossing && this.#me < from) return true;
    if (peer && !isCrossing && peer.continuedBy(message) && this.#belongs(peer, message)) {
      peer.receive(message);
      return true;
    }
    // Who was removed does not know the id that the call has had since then, unless a member let them in.
    const isLetIn = peer || !(this.#left.get(from)?.id === this.id || this.isFull);
    if (!isCrossing && !(message.group === this.id && isLetIn)) return false;
    this.accept(from, { offer: message, candidates: [] });
    return true;
  }

  #takeAnswer(peer, message) {
    // It answers an earlier offer of ours. The last offer is still open, and may have to be sent again.
    if (message.answers !== undefined && !peer.isAnsweredBy(message)) return true;
    if (!peer.met) {
      peer.old = message.group === undefined;
      const isOther = !peer.old && message.group !== this.id;
      if (isOther && message.answers === undefined) return true; // perhaps late, from a former call
      if (isOther && !this.#adopt(message)) {
        this.#send('leave', peer.name, { reason: 'busy', group: message.group });
        this.drop(peer.name, 'busy');
        return true;
      }
    }
    if (!this.#belongs(peer, message)) return false;
    if (sdpOf(message) === '') return true;
    peer.receive(message);
    if (!peer.connected) this.#limit(peer, CONNECTING_MS, 'no-route');
    return true;
  }

  /** The answer came from another call. If nobody else is in ours, we join that call; else we refuse. */
  #adopt({ group }) {
    const alone = this.peers.size === 1;
    if (!alone || typeof group !== 'string' || group.length > LONGEST_ID) return false;
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
    if (reason === 'removed' && peer.connected) this.#on.removed(peer.name);
    else this.drop(peer.name, typeof reason === 'string' ? reason : 'hangup', true);
    return true;
  }

  /** The server's own `leave`: this person lost the connection to the server, which ends no call yet. */
  #lineLost(peer) {
    if (peer.connected) return peer.watch();
    peer.returnBy = Date.now() + RETURN_MS;
    if (peer.dialed) this.#redialSoon(peer);
    else this.#limit(peer, RETURN_MS, 'gone');
  }

  #redialSoon(peer) {
    clearTimeout(peer.timer);
    peer.timer = setTimeout(() => this.#dial(peer.name, peer.dialed), REDIAL_MS);
  }

  #belongs(peer, { group }) {
    return group === this.id || (group === undefined && (peer.old || !peer.met));
  }
}
