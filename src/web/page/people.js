/*
 * People: whom we called before, and who called in vain; and the link and QR code that bring somebody
 * here. Names alone are stored, and can be cleared.
 */

const STORE = 'people';
const MOST_STORED = 8;
const MOST_MISSED = 20;
export const MAX_NAME = 128;

/** Lets something happen at most so often in this time. */
export class Limit {
  #most; #ms; #times = [];

  constructor(most, ms) {
    this.#most = most;
    this.#ms = ms;
  }

  take() {
    const now = performance.now();
    this.#times = this.#times.filter((time) => now - time < this.#ms);
    if (this.#times.length >= this.#most) return false;
    this.#times.push(now);
    return true;
  }
}

// One name a line. Somebody may have changed what is stored.
let recent = recall(STORE).split('\n').filter((name) => name && name.length <= MAX_NAME).slice(0, MOST_STORED);
let missed = [];

export const recentPeople = () => recent;
export const missedCalls = () => missed;

export function called(name) {
  recent = [name, ...recent.filter((other) => other !== name)].slice(0, MOST_STORED);
  remember(STORE, recent.join('\n'));
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

/** The link to call us. `localhost` in it would not work on a phone, so the server's address replaces it. */
export function linkTo(name, { addresses: [address], tlsPort }) {
  const url = new URL(location.pathname, location.href);
  const isOwn = ['localhost', '[::1]'].includes(url.hostname) || url.hostname.startsWith('127.');
  if (isOwn && address && tlsPort !== null) {
    url.protocol = 'https:';
    url.hostname = address.includes(':') ? `[${address}]` : address;
    url.port = tlsPort;
  }
  url.hash = `call=${encodeURIComponent(name)}`;
  return url.href;
}

/** The server draws QR codes; the text goes there in hex, so that nothing in it needs an escape. */
export function qrImage(link) {
  const bytes = [...new TextEncoder().encode(link)];
  return `qr/${bytes.map((byte) => byte.toString(16).padStart(2, '0')).join('')}.svg`;
}

/** What the page's link says: `#user=…&token=…` logs in, `#call=…` names whom to call. */
export function linkFields() {
  return new URLSearchParams(location.hash.slice(1));
}

/** One spelling for names that look the same, whatever keyboard they were typed on; and one line. */
export function cleanName(text) {
  return text.replace(/[\r\n]+/g, ' ').trim().normalize();
}

/** Stores a value on this device or, with `tab`, for this tab only, where it survives a reload. */
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
