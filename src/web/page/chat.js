/*
 * The lines of text of one call. They are shown as text; an address in them is a button that asks before
 * it is opened, and shows where it leads.
 */

import { node } from './stage.js';
import { nameOf, put, text } from './words.js';

export const LONGEST_TEXT = 2_000;
const MOST_LINES = 200;
const LINES_PER_PERSON = 8; // in `PERIOD_MS`; more are dropped
const PERIOD_MS = 10_000;
const ADDRESS = /(https?:\/\/[^\s<>"'\u2066-\u2069\u202a-\u202e]+)/;

export class Chat {
  unread = 0;
  #page; #times = new Map();

  /** `page` holds the elements: `chatList`, `chatEmpty`, `openLink` and what is in it. */
  constructor(page) {
    this.#page = page;
    page.openLinkNot.onclick = page.openLinkNow.onclick = () => { page.openLink.hidden = true; };
  }

  /** A line by `name`, or our own if that is null. Says whether it was taken. */
  add(name, line) {
    if (name !== null && !this.#isTimely(name)) return false;
    const item = node('div', name === null ? 'mine' : '');
    const head = node('span', 'by');
    if (name === null) head.textContent = text('you');
    else head.append(nameOf(name));
    const body = node('p');
    body.dir = 'auto';
    const parts = line.slice(0, LONGEST_TEXT).split(ADDRESS);
    body.append(...parts.map((part, i) => (i % 2 ? this.#address(name, part) : part)));
    item.append(head, body);
    const list = this.#page.chatList;
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    list.append(item);
    if (list.childElementCount > MOST_LINES) list.firstElementChild.remove();
    if (atEnd || name === null) list.scrollTop = list.scrollHeight;
    this.#page.chatEmpty.hidden = true;
    return true;
  }

  clear() {
    this.unread = 0;
    this.#times.clear();
    this.#page.chatList.replaceChildren();
    this.#page.chatEmpty.hidden = false;
    this.#page.openLink.hidden = true;
  }

  #isTimely(name) {
    const now = performance.now();
    const times = (this.#times.get(name) ?? []).filter((time) => now - time < PERIOD_MS);
    if (times.length >= LINES_PER_PERSON) return false;
    this.#times.set(name, [...times, now]);
    return true;
  }

  #address(name, address) {
    let url;
    try {
      url = new URL(address);
    } catch {
      return address;
    }
    const button = node('button', 'address');
    button.type = 'button';
    button.textContent = address;
    button.onclick = () => {
      put(this.#page.openLinkWords, 'openLink', { host: url.host, name: name ?? text('you') });
      this.#page.openLinkNow.href = url.href;
      this.#page.openLink.hidden = false;
      this.#page.openLinkNow.focus();
    };
    return button;
  }
}
