/*
 * The pictures: one tile for each other person, and our own; who is muted, shares a screen or cannot be
 * seen. The grid itself is in style.css, by the number of tiles.
 */

import { put, text, translate } from './words.js';

export class Stage {
  #stage; #template; #tiles = new Map(); #output = '';

  /** `stage` gets the tiles, which are copies of `template`'s. */
  constructor(stage, template) {
    [this.#stage, this.#template] = [stage, template];
  }

  /**
   * `people` are `{ name, stream, muted, camera, screen, poor, condition, canBeRemoved }`, the condition the
   * key of a sentence or null; and ourselves with `isOwn` and `isMirrored`.
   */
  draw(people) {
    for (const [name, tile] of this.#tiles) {
      if (people.some((person) => person.name === name)) continue;
      tile.querySelector('video').srcObject = null;
      tile.remove();
      this.#tiles.delete(name);
    }
    const others = people.filter(({ isOwn }) => !isOwn);
    const sharer = others.find(({ screen }) => screen)?.name;
    for (const person of people) {
      const tile = this.#tiles.get(person.name) ?? this.#add(person);
      fill(tile, person);
      tile.toggleAttribute('data-screen', person.name === sharer);
    }
    this.#stage.dataset.count = others.length;
    this.#stage.toggleAttribute('data-screen', sharer !== undefined);
  }

  setOutput(deviceId) {
    this.#output = deviceId;
    for (const video of this.#stage.querySelectorAll('video')) video.setSinkId(deviceId).catch(() => {});
  }

  /** The shared screen or, without one, the first person, in a small window of its own. */
  async pictureInPicture() {
    if (document.pictureInPictureElement) return document.exitPictureInPicture();
    const tile = this.#stage.querySelector('.tile[data-screen]') ?? this.#stage.querySelector('.tile:not(.own)');
    const video = tile.querySelector('video');
    return video.requestPictureInPicture().catch((error) => console.debug('stage:', error));
  }

  #add({ name, isOwn }) {
    const tile = this.#template.content.firstElementChild.cloneNode(true);
    const [avatar, video, plate, remove] = ['.avatar', 'video', '.plate .name', '.remove']
      .map((part) => tile.querySelector(part));
    const shown = isOwn ? text('you') : name;
    translate(tile);
    tile.classList.toggle('own', Boolean(isOwn));
    avatar.dataset.hue = isOwn ? 0 : [...name].reduce((sum, letter) => (sum + letter.codePointAt(0)) % 6, 0);
    avatar.textContent = firstLetter(name);
    Object.assign(video, { muted: Boolean(isOwn), ariaLabel: text('picture', { name: shown }) });
    plate.textContent = shown;
    remove.dataset.name = name;
    remove.ariaLabel = text('remove', { name });
    this.#tiles.set(name, tile);
    this.#stage.append(tile);
    if (this.#output) video.setSinkId(this.#output).catch(() => {}); // Firefox: not before it is in the page
    return tile;
  }
}

function fill(tile, { name, stream, muted, camera, screen, poor, condition, canBeRemoved, isMirrored }) {
  const [video, words] = ['video', '.condition'].map((part) => tile.querySelector(part));
  if (video.srcObject !== stream) video.srcObject = stream;
  video.classList.toggle('mirrored', Boolean(isMirrored));
  const isSeen = camera || screen;
  tile.classList.toggle('unseen', !isSeen);
  put(words, condition ?? null, { name });
  words.hidden = !condition;
  const badges = { muted, cameraOff: !isSeen && !condition, poor };
  for (const badge of tile.querySelectorAll('.badge')) badge.hidden = !badges[badge.dataset.badge];
  tile.querySelector('.remove').hidden = !canBeRemoved;
}

function firstLetter(name) {
  const [first] = new Intl.Segmenter().segment(name);
  return (first?.segment ?? '').slice(0, 8).toUpperCase();
}
