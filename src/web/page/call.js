/*
 * A call from its first press to its end: camera and microphone are asked for, somebody is called or answered,
 * people come and go.
 */

import { Group } from './group.js';
import * as people from './people.js';
import { callers, chat, draw, media, mediaChanged, say, send, signaling, stage, state } from './state.js';
import { page } from './view.js';
import { text } from './words.js';

const ASKING_MS = 60_000;

// Why a call ended, or did not begin; the codes of the server and the reasons of peers.
export const ENDINGS = {
  __proto__: null,
  hangup: 'sayHungUp', busy: 'sayBusy', declined: 'sayDeclined', unable: 'sayUnable', gone: 'sayUnreachable',
  lost: 'sayLost', removed: 'sayRemoved', 'no-answer': 'sayNoAnswer', 'no-route': 'sayNoRoute',
  'user-not-found': 'sayAbsent', 'user-unreachable': 'sayUnreachable', 'too-many-calls': 'sayTooManyCalls',
};

export function answer(name, withCamera) {
  if (!callers.names.includes(name)) return;
  if (!state.group) return ask(name, { withCamera, answering: true });
  meet(name);
  draw();
}

export function decline(name) {
  callers.sayNotNow(name);
  say('sayNotNow', { name });
}

export function dial(typed) {
  const name = people.cleanName(typed);
  if (name === '') return say('sayNoName');
  if (name === state.me) return say('sayOwnName');
  if (!signaling.isOnline) return say('sayNoServer');
  if (callers.names.includes(name) && !state.asking) return answer(name, true);
  callers.forgive(name);
  state.absent = null;
  if (state.invitation === name) state.invitation = null;
  if (!state.group) return ask(name, { confirm: people.recall('checked') === '' });
  if (state.group.isFull) return say('sayFull');
  if (!state.group.peers.has(name)) meet(name);
  state.panel = null;
  say('calling', { name });
}

/** Opens camera and microphone, then calls or answers. If `name` is null, it is only a check of them. */
export async function ask(name, { withCamera = media.wantsCamera, answering = false, confirm = false }) {
  const asking = { name, answering, confirm, opened: false };
  Object.assign(state, { asking, notice: null });
  const limit = setTimeout(() => asking === state.asking && giveUpAsking('sayAskedTooLong'), ASKING_MS);
  draw();
  const mayGoOn = await media.open(withCamera);
  clearTimeout(limit);
  if (asking !== state.asking) return;
  if (!mayGoOn) return giveUpAsking(navigator.mediaDevices ? 'sayBlocked' : 'sayInsecure');
  asking.opened = true;
  if (confirm) draw();
  else begin();
}

export function begin() {
  const { name, answering } = state.asking;
  people.remember('checked', '1');
  if (name === null) return cancel();
  if (!answering && !signaling.isOnline) return giveUpAsking('sayNoServer');
  const { iceServers } = state.config;
  state.group = new Group({
    me: state.me,
    media,
    configuration: {
      iceServers: [...(Array.isArray(iceServers) ? iceServers : []), ...state.turnServers],
      // With `#relay` in the page's address, only the TURN server is used, which tests it.
      iceTransportPolicy: people.linkFields().has('relay') ? 'relay' : 'all',
    },
    send,
    on: { change: onGroupChange, joined: onJoined, gone: onGone, removed: onRemoved, text: onText },
  });
  state.asking = null;
  meet(name);
  say(null);
  mediaChanged();
}

/** Takes this person into the call: answers them if they call us, and calls them if not. */
function meet(name) {
  people.called(name);
  const caller = callers.take(name);
  if (caller) state.group.accept(name, caller);
  else state.group.invite(name);
}

function giveUpAsking(words) {
  callers.refuse(state.asking.name, 'unable');
  cancel(words);
}

export function cancel(words = null) {
  state.asking = null;
  say(words);
}

// --- in a call ------------------------------------------------------------------------------

function onGroupChange() {
  const poor = state.group?.connected.find((peer) => peer.poor && !peer.interrupted && !peer.toldPoor);
  if (!poor) return draw();
  poor.toldPoor = true;
  say('sayPoor', { name: poor.name });
}

function onJoined(name) {
  people.called(name);
  if (state.group.connected.length > 1) return say('sayJoined', { name });
  const { audio, video } = media.problems;
  if (audio && video) say('sayNoDevices');
  else if (audio) say('sayNoMicrophone');
  else say(video ? 'sayNoCamera' : null);
}

function onGone({ name, connected, dialed }, why) {
  const words = ENDINGS[why] ?? 'sayHungUp';
  if (state.group.peers.size === 0) {
    if (why === 'user-not-found') state.absent = { name, isAwaited: false, isProbed: false };
    endCall(state.absent ? null : words, { name });
  } else if (connected || (dialed && !dialed.mesh)) {
    say(connected && why === 'hangup' ? 'sayLeft' : words, { name });
  } else {
    draw();
  }
}

function onRemoved(name) {
  endCall('sayYouWereRemoved', { name });
}

export function remove(name) {
  if (confirm(text('removeSure', { name }))) state.group?.remove(name);
}

/** Ends the call and shows why, or shows that the server refused our login during the call. */
export function endCall(words, values) {
  state.group.leave();
  state.group = null;
  state.panel = null;
  chat.clear();
  stage.draw([]);
  if (document.fullscreenElement) document.exitFullscreen();
  if (document.pictureInPictureElement) document.exitPictureInPicture();
  say(state.refusal ?? words, values);
  state.refusal = null;
}

function onText(name, line) {
  chat.add(name, line);
  draw();
}

export function sendText() {
  const line = page.chatText.value.trim();
  if (line === '') return;
  if (!state.group.text(line)) return say('sayNoChat');
  chat.add(null, line);
  page.chatText.value = '';
}
