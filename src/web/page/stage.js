/*
 * The pictures: one tile for each other person, and our own; who is muted, shares a screen or cannot be
 * seen. The grid itself is in style.css, by the number of tiles.
 */

import { nameOf, put, text } from './words.js';

const BADGES = { muted: ['mic-off', 'muted'], cameraIsOff: ['cam-off', 'cameraIsOff'], poor: ['poor', 'poor'] };

export class Stage {
  #stage; #tiles = new Map(); #own; #output = '';

  constructor(stage) {
    this.#stage = stage;
    this.#own = this.#tile('', true);
  }

  /**
   * `people` are `{ name, stream, muted, camera, screen, poor, condition }`, the condition a sentence or
   * null; `own` is the same for ourselves, with `mirrored`.
   */
  draw(people, own) {
    const names = new Set(people.map(({ name }) => name));
    for (const [name, tile] of this.#tiles) {
      if (names.has(name)) continue;
      tile.video.srcObject = null;
      tile.element.remove();
      this.#tiles.delete(name);
    }
    for (const person of people) {
      const tile = this.#tiles.get(person.name) ?? this.#add(person.name);
      this.#fill(tile, person);
    }
    this.#fill(this.#own, own);
    this.#own.video.classList.toggle('mirrored', own.mirrored && !own.screen);
    this.#stage.append(this.#own.element);
    this.#stage.dataset.count = people.length;
    const screen = people.find((person) => person.screen);
    this.#stage.toggleAttribute('data-screen', Boolean(screen));
    for (const [name, { element }] of this.#tiles) element.toggleAttribute('data-screen', name === screen?.name);
  }

  clear() {
    this.draw([], { name: '', stream: null, camera: false });
    this.#own.video.srcObject = null;
  }

  setOutput(deviceId) {
    this.#output = deviceId;
    for (const { video } of this.#tiles.values()) video.setSinkId?.(deviceId).catch(() => {});
  }

  get canLeaveThePage() {
    return Boolean(document.pictureInPictureEnabled);
  }

  async pictureInPicture() {
    if (document.pictureInPictureElement) return document.exitPictureInPicture();
    const tiles = [...this.#tiles.values()];
    const tile = tiles.find(({ element }) => element.hasAttribute('data-screen')) ?? tiles[0];
    return tile?.video.requestPictureInPicture().catch((error) => console.debug('stage:', error));
  }

  #add(name) {
    const tile = this.#tile(name, false);
    this.#tiles.set(name, tile);
    this.#stage.append(tile.element);
    if (this.#output) tile.video.setSinkId?.(this.#output).catch(() => {});
    return tile;
  }

  #tile(name, isOwn) {
    const element = node('div', isOwn ? 'tile own' : 'tile');
    const video = node('video');
    Object.assign(video, { autoplay: true, playsInline: true, muted: isOwn });
    video.setAttribute('aria-label', text('picture', { name: isOwn ? text('you') : name }));
    const avatar = node('div', 'avatar');
    avatar.setAttribute('aria-hidden', 'true');
    avatar.textContent = firstLetter(isOwn ? '' : name);
    avatar.dataset.hue = [...name].reduce((sum, letter) => (sum + letter.codePointAt(0)) % 6, 0);
    const condition = node('p', 'condition');
    const plate = node('p', 'plate');
    const badges = node('span', 'badges');
    plate.append(isOwn ? text('you') : nameOf(name), badges);
    element.append(avatar, video, condition, plate);
    return { element, video, avatar, condition, badges };
  }

  #fill(tile, { name, stream, muted, camera, screen, poor, condition }) {
    if (tile.video.srcObject !== stream) tile.video.srcObject = stream;
    const seen = camera || screen;
    tile.element.classList.toggle('unseen', !seen);
    if (tile === this.#own) tile.avatar.textContent = firstLetter(name);
    put(tile.condition, condition?.[0] ?? null, condition?.[1]);
    tile.condition.hidden = !condition;
    const shown = Object.entries({ muted, cameraIsOff: !seen && !condition, poor }).filter(([, on]) => on);
    const key = shown.map(([badge]) => badge).join();
    if (tile.badges.dataset.shown === key) return;
    tile.badges.dataset.shown = key;
    tile.badges.replaceChildren(...shown.map(([badge]) => icon(...BADGES[badge])));
  }
}

function icon(symbol, words) {
  const badge = node('span', 'badge');
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
  svg.setAttribute('aria-hidden', 'true');
  use.setAttribute('href', `#${symbol}`);
  svg.append(use);
  const label = node('span', 'sr');
  label.textContent = text(words);
  badge.append(svg, label);
  return badge;
}

function firstLetter(name) {
  const [first] = new Intl.Segmenter().segment(name);
  return (first?.segment ?? '').slice(0, 8).toUpperCase();
}

export function node(tag, className = '') {
  const element = document.createElement(tag);
  if (className) element.className = className;
  return element;
}
