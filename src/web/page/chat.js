/*
 * The chat of one call. Lines are shown as plain text. A web address in a line becomes a link, which names
 * its host and asks the user before it opens.
 */

import { Limit } from './people.js';
import { nameOf, node, text } from './words.js';

const LONGEST_TEXT = 2_000;
const MOST_LINES = 200;
const LINES_PER_PERSON = 8; // in `PERIOD_MS`; more are dropped
const PERIOD_MS = 10_000;
const NEAR_END_PX = 40; // the list follows others' new lines only if it is scrolled this near to its end
const ADDRESS = /(https?:\/\/[^\s<>"'\u2066-\u2069\u202a-\u202e]+)/;

export class Chat {
  unread = 0;
  #list; #limits = new Map();

  /** `list` is the element that gets the lines. */
  constructor(list) {
    this.#list = list;
  }

  /** A line by `name`, or our own if that is null. */
  add(name, line) {
    if (name !== null && !this.#limitOf(name).take()) return;
    const list = this.#list;
    const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < NEAR_END_PX;
    const by = node('span', { className: 'by' }, name === null ? text('you') : nameOf(name));
    const parts = line.slice(0, LONGEST_TEXT).split(ADDRESS);
    const body = node('p', { dir: 'auto' }, ...parts.map((part, i) => (i % 2 ? link(name, part) : part)));
    list.append(node('div', { className: name === null ? 'mine' : '' }, by, body));
    if (list.childElementCount > MOST_LINES) list.firstElementChild.remove();
    if (isAtEnd || name === null) list.scrollTop = list.scrollHeight;
    if (name !== null) this.unread += 1;
  }

  clear() {
    this.unread = 0;
    this.#limits.clear();
    this.#list.replaceChildren();
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
