/*
 * The state of the page, and what draws it. `line` is the connection to the server: off, connecting or
 * online. `call` is none, asking (for camera and microphone), calling, ringing, connecting or talking. Every
 * event changes the state and calls `draw`.
 */

import { Callers } from './callers.js';
import { Chat } from './chat.js';
import { Media } from './media.js';
import * as people from './people.js';
import { Ring } from './ring.js';
import { Signaling } from './signaling.js';
import { Stage } from './stage.js';
import { fillPickers, page, render } from './view.js';
import { text } from './words.js';

const NOTICE_MS = 8_000; // in a call, where it lies over the pictures

export const state = {
  line: 'off',
  get call() {
    if (this.group?.stood) return 'talking';
    if (this.group) return this.group.all.some(({ met }) => met) ? 'connecting' : 'calling';
    if (this.asking) return 'asking';
    return this.ringing.length > 0 ? 'ringing' : 'none';
  },
  me: null, // our name, once the server has granted it
  name: people.recall('name'), // the name that this device knows
  token: '', tokenFromLink: false, turnServers: [], refusal: null,
  config: { iceServers: [], tlsPort: null, tokens: false, addresses: [] },
  get ringing() { return callers.names; },
  asking: null, // while camera and microphone are opened: { name, answering, confirm, opened }
  invitation: null, loginLink: null, callOnceOnline: false,
  absent: null, // whom we called in vain: { name, isAwaited, isProbed }
  notice: null, panel: null,
  group: null, // the call that we take part in
};

export const media = new Media(mediaChanged, deviceGone);
export const ring = new Ring(draw);
export const stage = new Stage(page.stage, page.tile);
export const chat = new Chat(page.chatList);
export const signaling = new Signaling(new URL('.', location.href).href.replace(/^http/, 'ws'), {
  inCall: () => state.group !== null,
  busy: () => state.call !== 'none',
});
export const send = (signalType, toUser, fields) => signaling.send(signalType, toUser, fields);
export const callers = new Callers(send, { change: draw, gone: (name) => say('sayMissed', { name }) });

let noticeTimer;

export function draw() {
  const { asking, ringing } = state;
  if (asking?.answering && !ringing.includes(asking.name)) state.asking = null; // this caller rings no more
  if (!state.group && !state.asking) media.close(); // for every way in which a call ends
  const isCalling = ringing.length > 0 && text('isCalling', { name: ringing.at(-1) });
  const [other] = state.group?.connected ?? [];
  document.title = isCalling || (other ? text('inCallWith', { name: other.name }) : text('title'));
  ring.update(isCalling, state.group !== null);
  render(state, { media, ring, stage, chat });
}

export function say(key, values = {}) {
  clearTimeout(noticeTimer);
  state.notice = key && { key, values };
  if (state.group) noticeTimer = setTimeout(() => say(null), NOTICE_MS);
  draw();
}

export function mediaChanged() {
  state.group?.tell();
  fillPickers(media).then(draw);
  draw();
}

function deviceGone(kind, isReplaced) {
  if (!state.group && !state.asking) return;
  if (kind === 'screen') say('sayScreenEnded');
  else if (isReplaced) say('sayDeviceReplaced');
  else say(kind === 'audio' ? 'sayMicrophoneGone' : 'sayCameraGone');
}
