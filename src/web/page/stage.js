/*
 * The pictures: one tile for each other person, and our own; who is muted, shares a screen or cannot be
 * seen. The grid itself is in style.css, by the number of tiles.
 */

import { actionButton, icon, nameOf, node, put, text } from './words.js';

const BADGES = { muted: 'mic-off', cameraOff: 'cam-off', poor: 'poor' };

export class Stage {
  #stage; #tiles = new Map(); #own = makeTile(); #output = '';

  constructor(stage) {
    this.#stage = stage;
  }

  /**
   * `people` are `{ name, stream, muted, camera, screen, poor, condition }`, the condition the key of a
   * sentence or null; `own` is the same for ourselves, with `mirrored`. In a group, people can be removed.
   */
  draw(people, own, isGroup = false) {
    for (const [name, { element, video }] of this.#tiles) {
      if (people.some((person) => person.name === name)) continue;
      video.srcObject = null;
      element.remove();
      this.#tiles.delete(name);
    }
    const sharer = people.find(({ screen }) => screen)?.name;
    for (const person of people) {
      const tile = this.#tiles.get(person.name) ?? this.#add(person.name);
      fill(tile, person);
      tile.element.toggleAttribute('data-screen', person.name === sharer);
      tile.remove.hidden = !isGroup;
    }
    fill(this.#own, own);
    this.#own.video.classList.toggle('mirrored', Boolean(own.mirrored));
    this.#stage.append(this.#own.element);
    this.#stage.dataset.count = people.length;
    this.#stage.toggleAttribute('data-screen', sharer !== undefined);
  }

  clear() {
    this.draw([], { name: '', stream: null });
  }

  setOutput(deviceId) {
    this.#output = deviceId;
    for (const { video } of this.#tiles.values()) video.setSinkId(deviceId).catch(() => {});
  }

  /** The shared screen or, without one, the first person, in a small window of its own. */
  async pictureInPicture() {
    if (document.pictureInPictureElement) return document.exitPictureInPicture();
    const tiles = [...this.#tiles.values()];
    const { video } = tiles.find(({ element }) => element.hasAttribute('data-screen')) ?? tiles[0];
    return video.requestPictureInPicture().catch((error) => console.debug('stage:', error));
  }

  #add(name) {
    const tile = makeTile(name);
    this.#tiles.set(name, tile);
    this.#stage.append(tile.element);
    if (this.#output) tile.video.setSinkId(this.#output).catch(() => {});
    return tile;
  }
}

/** A tile for this person, or for ourselves. */
function makeTile(name = null) {
  const isOwn = name === null;
  const ariaLabel = text('picture', { name: name ?? text('you') });
  const video = node('video', { autoplay: true, playsInline: true, muted: isOwn, ariaLabel });
  const hue = [...(name ?? '')].reduce((sum, letter) => (sum + letter.codePointAt(0)) % 6, 0);
  const avatar = node('div', { className: 'avatar', ariaHidden: true, data: { hue } });
  const condition = node('p', { className: 'condition' });
  const badges = node('span', { className: 'badges' });
  const remove = actionButton('remove', name, 'remove', icon('close'));
  Object.assign(remove, { hidden: true, ariaLabel: text('remove', { name }) });
  const plate = node('p', { className: 'plate' }, isOwn ? text('you') : nameOf(name), badges, remove);
  const element = node('div', { className: isOwn ? 'tile own' : 'tile' }, avatar, video, condition, plate);
  return { element, video, avatar, condition, badges, remove };
}

function fill(tile, { name, stream, muted, camera, screen, poor, condition }) {
  if (tile.video.srcObject !== stream) tile.video.srcObject = stream;
  const seen = camera || screen;
  tile.element.classList.toggle('unseen', !seen);
  tile.avatar.textContent = firstLetter(name);
  put(tile.condition, condition ?? null, { name });
  tile.condition.hidden = !condition;
  const on = { muted, cameraOff: !seen && !condition, poor };
  const shown = Object.keys(BADGES).filter((badge) => on[badge]);
  if (tile.badges.dataset.shown === shown.join()) return;
  tile.badges.dataset.shown = shown.join();
  tile.badges.replaceChildren(...shown.map((badge) => {
    const words = node('span', { className: 'sr' }, text(badge));
    return node('span', { className: 'badge' }, icon(BADGES[badge]), words);
  }));
}

function firstLetter(name) {
  const [first] = new Intl.Segmenter().segment(name);
  return (first?.segment ?? '').slice(0, 8).toUpperCase();
}
