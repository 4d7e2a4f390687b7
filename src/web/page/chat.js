/*
 * The lines of text of one call. They are shown as text; an address in them asks before it is
 * opened, and says where it leads.
 */

import { Limit } from './people.js';
import { nameOf, node, text } from './words.js';

const LONGEST_TEXT = 2_000;
const MOST_LINES = 200;
const LINES_PER_PERSON = 8; // in `PERIOD_MS`; more are dropped
const PERIOD_MS = 10_000;
const NEAR_END_PX = 40; // whoever has scrolled further up is reading there
const ADDRESS = /(https?:\/\/[^\s<>"'\u2066-\u2069\u202a-\u202e]+)/;

export class Chat {
  unread = 0;
  #page; #limits = new Map();

  /** `page` holds the elements `chatList` and `chatEmpty`. */
  constructor(page) {
    this.#page = page;
  }

  /** A line by `name`, or our own if that is null. Says whether it was taken. */
  add(name, line) {
    if (name !== null && !this.#limitOf(name).take()) return false;
    const { chatList, chatEmpty } = this.#page;
    const atEnd = chatList.scrollHeight - chatList.scrollTop - chatList.clientHeight < NEAR_END_PX;
    const by = node('span', { className: 'by' }, name === null ? text('you') : nameOf(name));
    const parts = line.slice(0, LONGEST_TEXT).split(ADDRESS);
    const body = node('p', { dir: 'auto' }, ...parts.map((part, i) => (i % 2 ? link(name, part) : part)));
    chatList.append(node('div', { className: name === null ? 'mine' : '' }, by, body));
    if (chatList.childElementCount > MOST_LINES) chatList.firstElementChild.remove();
    if (atEnd || name === null) chatList.scrollTop = chatList.scrollHeight;
    chatEmpty.hidden = true;
    return true;
  }

  clear() {
    this.unread = 0;
    this.#limits.clear();
    this.#page.chatList.replaceChildren();
    this.#page.chatEmpty.hidden = false;
  }

  #limitOf(name) {
    const limit = this.#limits.get(name) ?? new Limit(LINES_PER_PERSON, PERIOD_MS);
    this.#limits.set(name, limit);
    return limit;
  }
}

function link(name, address) {
  if (!URL.canParse(address)) return address;
  const { host, href } = new URL(address);
  const question = text('openLink', { host, name: name ?? text('you') });
  const properties = { href, target: '_blank', rel: 'noopener noreferrer', onclick: () => confirm(question) };
  return node('a', properties, address);
}
