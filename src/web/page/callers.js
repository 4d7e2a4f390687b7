/*
 * The people who are ringing us: at most three at once and twelve a minute, under whatever names. Further
 * callers are told "busy", and are listed as missed calls. A caller to whom we said "not now" is declined
 * for a minute.
 */

import { MAX_CANDIDATES, sdpOf } from './peer.js';
import { Limit, missedCall } from './people.js';

const MOST_CALLERS = 3;
const RINGING_MS = 65_000; // the caller gives up a little earlier
const RETURN_MS = 10_000; // for a caller to reconnect to the server
const NOT_NOW_MS = 60_000;

export class Callers {
  #callers = new Map(); // name → { offer, candidates, timer }
  #notNow = new Map(); // name → until when
  #rings = new Limit(12, 60_000);
  #refusals = new Limit(5, 1_000); // callers cannot use up our own message rate
  #send; #on;

  /** `send(signalType, toUser, fields)`; `on` holds `change()`, and `gone(name)` for a caller who gave up. */
  constructor(send, on) {
    [this.#send, this.#on] = [send, on];
  }

  /** In the order in which they began to ring. */
  get names() {
    return [...this.#callers.keys()];
  }

  /** Takes an offer that belongs to no call of ours. `isBusy`: we cannot take a new caller now. */
  ring(name, offer, isBusy) {
    const known = this.#callers.get(name);
    if (known && offer.group !== undefined && known.offer.group === offer.group) {
      Object.assign(known, { offer, candidates: [] }); // the caller reconnected, and dials the same call again
      return this.#expect(name, RINGING_MS);
    }
    if (this.#notNow.get(name) > performance.now()) return this.#turnAway(name, offer, 'declined');
    const isFull = isBusy || this.#callers.size >= MOST_CALLERS;
    if (!known && (isFull || !this.#rings.take())) {
      missedCall(name);
      this.#turnAway(name, offer, 'busy');
    } else {
      clearTimeout(known?.timer);
      this.#callers.set(name, { offer, candidates: [] });
      this.#expect(name, RINGING_MS);
    }
    this.#on.change();
  }

  /** What a caller sends after the offer. */
  receive(name, message) {
    const caller = this.#callers.get(name);
    if (!caller) return;
    const { signalType, group, reason } = message;
    const isTheirs = group === caller.offer.group;
    if (signalType === 'candidate' && isTheirs && caller.candidates.length < MAX_CANDIDATES) {
      caller.candidates.push(message);
    }
    if (signalType !== 'leave' || !(isTheirs || group === undefined)) return;
    // A `leave` without group and reason is the server's: the caller's connection is lost, and may return.
    if (!isTheirs && reason === undefined) this.#expect(name, RETURN_MS);
    else this.#gone(name);
  }

  /** Takes the caller's `{ offer, candidates }` to answer them; undefined if that person does not call. */
  take(name) {
    const caller = this.#callers.get(name);
    clearTimeout(caller?.timer);
    this.#callers.delete(name);
    return caller;
  }

  /** Says to a caller why there is no call. */
  refuse(name, reason) {
    const caller = this.take(name);
    if (caller) this.#turnAway(name, caller.offer, reason);
  }

  /** They cannot ring for a while. */
  sayNotNow(name) {
    this.refuse(name, 'declined');
    this.#notNow.set(name, performance.now() + NOT_NOW_MS);
  }

  /** We call them now, so they may call as well. */
  forgive(name) {
    this.#notNow.delete(name);
  }

  #turnAway(name, { group }, reason) {
    if (this.#refusals.take()) this.#send('leave', name, { reason, group });
  }

  #expect(name, ms) {
    const caller = this.#callers.get(name);
    clearTimeout(caller.timer);
    caller.timer = setTimeout(() => this.#gone(name), ms);
  }

  #gone(name) {
    this.take(name);
    missedCall(name);
    this.#on.gone(name);
  }
}
