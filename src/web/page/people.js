/*
 * People: whom we called before, who called in vain, whom we told "not now", who is awaited; and the link
 * and QR code that bring somebody here. Names alone are stored, and can be cleared.
 */

const STORE = 'people';
const MOST_STORED = 8;
const MOST_MISSED = 20;
const NOT_NOW_MS = 60_000;
const MOST_NOT_NOW = 100;
const MOST_TURNED_AWAY = 5; // a second, so that callers cannot use up our own message rate
const MOST_RINGS = 12; // a minute, whatever names they come under
const LOOK_MS = 4_000; // between two looks for somebody who is awaited
const ANSWER_MS = 1_500; // in which the server would say that somebody is not there
export const MAX_NAME = 128;

let recent = stored();
let missed = [];
let notNow = new Map();
let turnedAway = [];
let rings = [];

export const recentPeople = () => recent;
export const missedCalls = () => missed;

export function called(name) {
  recent = [name, ...recent.filter((other) => other !== name)].slice(0, MOST_STORED);
  remember(STORE, JSON.stringify(recent));
  missed = missed.filter((call) => call.name !== name);
}

export function missedCall(name) {
  const times = 1 + (missed.find((call) => call.name === name)?.times ?? 0);
  const rest = missed.filter((call) => call.name !== name);
  missed = [{ name, times, at: new Date() }, ...rest].slice(0, MOST_MISSED);
}

export function clearPeople() {
  [recent, missed] = [[], []];
  remember(STORE, '');
}

export function sayNotNow(name) {
  if (notNow.size >= MOST_NOT_NOW) notNow.delete(notNow.keys().next().value);
  notNow.set(name, performance.now() + NOT_NOW_MS);
}

export function isNotNow(name) {
  return notNow.get(name) > performance.now();
}

/** The user calls them now, so they may call as well. */
export function forgiveNotNow(name) {
  notNow.delete(name);
}

/** Whether one more caller may be told why there is no call. */
export function mayTurnAway() {
  return fits(turnedAway, MOST_TURNED_AWAY, 1_000, (kept) => { turnedAway = kept; });
}

/** Whether one more caller may ring. */
export function mayRing() {
  return fits(rings, MOST_RINGS, 60_000, (kept) => { rings = kept; });
}

function fits(times, most, ms, keep) {
  const now = performance.now();
  const kept = times.filter((time) => now - time < ms);
  const room = kept.length < most;
  keep(room ? [...kept, now] : kept);
  return room;
}

/**
 * Looks now and then whether somebody is there, without ringing: a candidate that belongs to no call is
 * ignored by everybody, but the server says when it cannot be delivered.
 */
export class Awaited {
  name = null; #timer; #send; #onBack;

  constructor(send, onBack) {
    this.#send = send;
    this.#onBack = onBack;
  }

  start(name) {
    this.name = name;
    this.#look(LOOK_MS);
  }

  stop() {
    this.name = null;
    clearTimeout(this.#timer);
  }

  isAbsent(name) {
    if (name === this.name) this.#look(LOOK_MS);
  }

  #look(pause) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const sent = this.#send(this.name);
      this.#timer = setTimeout(() => (sent ? this.#back() : this.#look(LOOK_MS)), ANSWER_MS);
    }, pause);
  }

  #back() {
    const { name } = this;
    this.stop();
    this.#onBack(name);
  }
}

/** The link that calls us. One made on this machine's own name for itself would not work on a phone. */
export function linkTo(name, { addresses, tlsPort }) {
  const url = new URL(location.pathname, location.href);
  const isOwn = ['localhost', '[::1]'].includes(url.hostname) || url.hostname.startsWith('127.');
  if (isOwn && addresses.length > 0 && tlsPort !== null) {
    url.protocol = 'https:';
    url.hostname = addresses[0].includes(':') ? `[${addresses[0]}]` : addresses[0];
    url.port = tlsPort;
  }
  url.hash = `call=${encodeURIComponent(name)}`;
  return url.href;
}

/** The server draws QR codes; the text goes there in hex, so that nothing in it needs an escape. */
export function qrImage(link) {
  const bytes = new TextEncoder().encode(link);
  return `qr/${Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')}.svg`;
}

/** What the page's link says: `#user=…&token=…` logs in, `#call=…` names whom to call. */
export function linkFields() {
  return new URLSearchParams(location.hash.slice(1));
}

/** One spelling for names that look the same, whatever keyboard they were typed on. */
export function cleanName(text) {
  return text.trim().normalize();
}

function stored() {
  try {
    const names = JSON.parse(recall(STORE) || '[]');
    return names.filter((name) => typeof name === 'string' && name.length <= MAX_NAME).slice(0, MOST_STORED);
  } catch {
    return [];
  }
}

/** With `tab`, for this tab alone, which keeps it while the page is loaded again. */
export function remember(key, value, tab = false) {
  try {
    const store = tab ? sessionStorage : localStorage;
    if (value === '') store.removeItem(key);
    else store.setItem(key, value);
  } catch { /* a browser may forbid it; then it is typed again */ }
}

export function recall(key, tab = false) {
  try {
    return (tab ? sessionStorage : localStorage).getItem(key) ?? '';
  } catch {
    return '';
  }
}
