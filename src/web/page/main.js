/*
 * The state and the wiring. Two values say what is going on: `line`, which is off, connecting or online,
 * and `call`, which is none, asking (for camera and microphone), calling, ringing, connecting or talking.
 * Everything that happens changes the state and calls `draw`.
 */

import { Callers } from './callers.js';
import { Chat } from './chat.js';
import { Group } from './group.js';
import { Media } from './media.js';
import { MAX_SDP, sdpOf } from './peer.js';
import * as people from './people.js';
import { Ring } from './ring.js';
import { Signaling } from './signaling.js';
import { Stage } from './stage.js';
import { fillPickers, page, render } from './view.js';
import { text, translate } from './words.js';

const ASKING_MS = 60_000;
const MAX_CANDIDATE = 4_000;
const NOTICE_MS = 8_000; // in a call, where it lies over the pictures
const CONFIG_PAUSE_MS = 2_000;
const LEVEL_MS = 100;
const LOOK_MS = 2_000; // for somebody who is awaited
const LONGEST_CODE = 40;

// Why a call ended, or did not begin; the codes of the server and the reasons of peers.
const ENDINGS = {
  __proto__: null,
  hangup: 'sayHungUp', busy: 'sayBusy', declined: 'sayDeclined', unable: 'sayUnable', gone: 'sayUnreachable',
  lost: 'sayLost', removed: 'sayRemoved', 'no-answer': 'sayNoAnswer', 'no-route': 'sayNoRoute',
  'user-not-found': 'sayAbsent', 'user-unreachable': 'sayUnreachable', 'too-many-calls': 'sayTooManyCalls',
};
const REFUSALS = {
  __proto__: null,
  'name-taken': 'sayNameTaken', 'invalid-name': 'sayInvalidName', unauthorized: 'sayUnauthorized',
  'other-tab': 'sayOtherTab', 'other-tab-busy': 'sayOtherTabBusy',
};

const state = {
  line: 'off',
  get call() {
    if (group?.stood) return 'talking';
    if (group) return group.all.some(({ met }) => met) ? 'connecting' : 'calling';
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
};

let group = null;
let noticeTimer;

const media = new Media(onMedia, onDeviceGone);
const ring = new Ring(draw);
const stage = new Stage(page.stage, page.tile);
const chat = new Chat(page.chatList);
const send = (signalType, toUser, fields) => signaling.send(signalType, toUser, fields);
const callers = new Callers(send, { change: draw, gone: onCallerGone });
const signaling = new Signaling(new URL('.', location.href).href.replace(/^http/, 'ws'), {
  online: onOnline, lost: onLost, refused: onRefused, message: onMessage,
  busy: () => state.call !== 'none',
});

function draw() {
  const { asking, ringing } = state;
  if (asking?.answering && !ringing.includes(asking.name)) state.asking = null; // this caller rings no more
  if (!group && !state.asking) media.close(); // the only place that does
  const isCalling = ringing.length > 0 && text('isCalling', { name: ringing.at(-1) });
  const [other] = group?.connected ?? [];
  document.title = isCalling || (other ? text('inCallWith', { name: other.name }) : text('title'));
  ring.update(isCalling, group !== null);
  render(state, { media, ring, stage, group, chat });
}

function say(key, values = {}) {
  clearTimeout(noticeTimer);
  state.notice = key && { key, values };
  if (group) noticeTimer = setTimeout(() => say(null), NOTICE_MS);
  draw();
}

// --- the line to the server -----------------------------------------------------------------

function goOnline(name, token = '', tokenFromLink = false) {
  const none = { me: null, loginLink: null, callOnceOnline: false };
  Object.assign(state, { line: 'connecting', token, tokenFromLink, ...none });
  say('sayGoingOnline');
  signaling.goOnline(name, token, name === people.recall('name'));
}

function submitLogin() {
  const name = people.cleanName(page.name.value);
  if (name === '') return say('sayNoName');
  goOnline(name, page.token.value.trim());
  state.callOnceOnline = state.invitation !== null;
}

function onOnline(name, turnServers) {
  const isNew = state.me === null;
  Object.assign(state, { line: 'online', me: name, name, turnServers });
  people.remember('name', name);
  people.remember('online', '1', true);
  if (isNew && !state.tokenFromLink) people.remember('token', page.keepToken.checked ? state.token : '');
  group?.lineIsBack();
  if (group) return say(null);
  say('sayOnline', { name });
  if (state.callOnceOnline) dial(state.invitation);
  state.callOnceOnline = false;
}

function onLost() {
  state.line = 'connecting';
  if (group?.stood) say('sayLineLostInCall');
  else say('sayNoServer');
}

/** A call that stands goes on: it is between the browsers. */
function onRefused(reason) {
  const refusal = REFUSALS[reason] ?? 'sayRefused';
  if (reason === 'unauthorized') {
    state.config.tokens = true;
    if (state.token === people.recall('token')) people.remember('token', '');
    page.token.value = '';
  }
  goOffline(refusal);
  if (!group) return;
  state.refusal = refusal; // said again after the call
  say('sayRefusedInCall');
}

function goOffline(words = 'sayOffline') {
  if (group && !group.stood) endCall(null);
  for (const name of callers.names) callers.take(name);
  signaling.goOffline();
  people.remember('online', '', true);
  Object.assign(state, { line: 'off', me: null, tokenFromLink: false, absent: null, asking: null });
  page.name.value = state.name;
  say(words);
}

function onMessage(message) {
  if (message.fromUser === undefined) return onServerError(message);
  const from = String(message.fromUser);
  const size = message.signalType === 'candidate' ? JSON.stringify(message.candidate ?? '').length : 0;
  if (from.length > people.MAX_NAME || size > MAX_CANDIDATE || sdpOf(message).length > MAX_SDP) return;
  if (group?.receive(from, message)) return draw();
  if (message.signalType === 'offer') onOffer(from, message);
  else callers.receive(from, message);
}

/** Only the server speaks without a `fromUser`; what it says is shown by its code, in our own words. */
function onServerError({ type, code, signalType, toUser }) {
  if (type !== 'error') return;
  const name = String(toUser);
  if (code === 'user-not-found' && state.absent?.name === name) state.absent.isProbed = false;
  group?.undelivered(name, signalType, code);
  const isPlain = code in ENDINGS || code === 'rate-limited' || signalType === 'candidate';
  if (isPlain) draw();
  else say('sayServerError', { name: String(code).slice(0, LONGEST_CODE) });
}

// --- being called ---------------------------------------------------------------------------

function onOffer(from, offer) {
  if (sdpOf(offer) === '' || offer.restart || offer.mesh) return; // about a call that we are not in
  if (group?.peers.has(from)) group.drop(from, 'lost'); // they have lost the call that we had
  callers.ring(from, offer, group !== null && (group.isFull || offer.size > 1));
}

function onCallerGone(name) {
  say('sayMissed', { name });
}

function answer(name, withCamera) {
  if (!callers.names.includes(name)) return;
  if (!group) return ask(name, { withCamera, answering: true });
  meet(name);
  draw();
}

function decline(name) {
  callers.sayNotNow(name);
  say('sayNotNow', { name });
}

// --- calling --------------------------------------------------------------------------------

function dial(typed) {
  const name = people.cleanName(typed);
  if (name === '') return say('sayNoName');
  if (name === state.me) return say('sayOwnName');
  if (!signaling.isOnline) return say('sayNoServer');
  if (callers.names.includes(name) && !state.asking) return answer(name, true);
  callers.forgive(name);
  state.absent = null;
  if (state.invitation === name) state.invitation = null;
  if (!group) return ask(name, { confirm: people.recall('checked') === '' });
  if (group.isFull) return say('sayFull');
  if (!group.peers.has(name)) meet(name);
  state.panel = null;
  say('calling', { name });
}

/** Opens camera and microphone, then goes on. Without a name it is for the user to look at. */
async function ask(name, { withCamera = media.wantsCamera, answering = false, confirm = false }) {
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

function begin() {
  const { name, answering } = state.asking;
  people.remember('checked', '1');
  if (name === null) return cancel();
  if (!answering && !signaling.isOnline) return giveUpAsking('sayNoServer');
  const { iceServers } = state.config;
  group = new Group({
    me: state.me,
    media,
    configuration: {
      iceServers: [...(Array.isArray(iceServers) ? iceServers : []), ...state.turnServers],
      // For whoever wants to see that the TURN server works: no other way is taken.
      iceTransportPolicy: people.linkFields().has('relay') ? 'relay' : 'all',
    },
    send,
    on: { change: onGroupChange, joined: onJoined, gone: onGone, removed: onRemoved, text: onText },
  });
  state.asking = null;
  meet(name);
  say(null);
  onMedia();
}

/** Takes this person into the call: answers them if they call us, and calls them if not. */
function meet(name) {
  people.called(name);
  const caller = callers.take(name);
  if (caller) group.accept(name, caller);
  else group.invite(name);
}

function giveUpAsking(words) {
  callers.refuse(state.asking.name, 'unable');
  cancel(words);
}

function cancel(words = null) {
  state.asking = null;
  say(words);
}

// --- in a call ------------------------------------------------------------------------------

function onGroupChange() {
  const poor = group?.connected.find((peer) => peer.poor && !peer.interrupted && !peer.toldPoor);
  if (!poor) return draw();
  poor.toldPoor = true;
  say('sayPoor', { name: poor.name });
}

function onJoined(name) {
  people.called(name);
  if (group.connected.length > 1) return say('sayJoined', { name });
  const { audio, video } = media.problems;
  if (audio && video) say('sayNoDevices');
  else if (audio) say('sayNoMicrophone');
  else say(video ? 'sayNoCamera' : null);
}

function onGone({ name, connected, dialed }, why) {
  const words = ENDINGS[why] ?? 'sayHungUp';
  if (group.peers.size === 0) {
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

function remove(name) {
  if (confirm(text('removeSure', { name }))) group?.remove(name);
}

/** Says why, or what the server has said meanwhile. */
function endCall(words, values) {
  group.leave();
  group = null;
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

function sendText() {
  const line = page.chatText.value.trim();
  if (line === '') return;
  if (!group.text(line)) return say('sayNoChat');
  chat.add(null, line);
  page.chatText.value = '';
}

function togglePanel(name) {
  const former = state.panel;
  state.panel = name === former ? null : name;
  draw();
  if (state.panel === null && former) page[former].focus();
}

function onMedia() {
  group?.tell();
  fillPickers(media).then(draw);
  draw();
}

function onDeviceGone(kind, isReplaced) {
  if (!group && !state.asking) return;
  if (kind === 'screen') say('sayScreenEnded');
  else if (isReplaced) say('sayDeviceReplaced');
  else say(kind === 'audio' ? 'sayMicrophoneGone' : 'sayCameraGone');
}

// --- links ----------------------------------------------------------------------------------

/**
 * A link may name the person to call; a call waits for a press in any case. It may also say who we are and
 * prove it. The proof must not stay where others can see it, and another user than this device's own goes
 * online only by a press.
 */
function followLink() {
  const link = people.linkFields();
  const [user, token, peer] = ['user', 'token', 'call'].map((key) => people.cleanName(link.get(key) ?? ''));
  if (token) {
    link.delete('user');
    link.delete('token');
    history.replaceState(null, '', location.pathname + location.search + (link.size ? `#${link}` : ''));
  }
  if (peer && peer !== state.me && peer.length <= people.MAX_NAME) state.invitation = peer;
  if (!user || !token || (user === state.me && state.line === 'online')) return draw();
  if (state.me === null && (state.name === '' || state.name === user)) return goOnline(user, token, true);
  state.loginLink = { user, token };
  draw();
}

function followInvitation() {
  const { loginLink, invitation } = state;
  if (loginLink) goOnline(loginLink.user, loginLink.token, true);
  else dial(invitation);
}

function dropInvitation() {
  if (state.loginLink) state.loginLink = null;
  else state.invitation = null;
  draw();
}

/**
 * Looks whether somebody who is awaited is there, without ringing: a candidate that belongs to no call is
 * ignored by everybody, but the server says when it cannot be delivered.
 */
function lookForAbsent() {
  const { absent } = state;
  if (!absent?.isAwaited || group || state.asking) return;
  if (absent.isProbed) dial(absent.name); // the server has not said so since the last look
  else absent.isProbed = send('candidate', absent.name, { candidate: null });
}

async function copyLink() {
  page.link.select();
  try {
    await navigator.clipboard.writeText(page.link.value);
    say('sayLinkCopied');
  } catch {
    say('saySelected');
  }
}

function rememberToken() {
  people.remember('token', state.token);
  page.keepToken.checked = true;
  state.tokenFromLink = false;
  say('sayRemembered');
}

// --- the beginning --------------------------------------------------------------------------

async function loadConfig() {
  try {
    const answer = await fetch('config.json');
    Object.assign(state.config, await answer.json());
  } catch {
    return setTimeout(loadConfig, CONFIG_PAUSE_MS);
  }
  if (navigator.mediaDevices) draw();
  else say('sayInsecure');
}

/** What a button does, by its `data-action` or else its id. */
const actions = {
  __proto__: null,
  followInvitation, dropInvitation, copyLink, rememberToken, begin, remove,
  cancel: () => cancel(),
  call: dial,
  answer: (name) => answer(name, media.wantsCamera),
  answerWithoutCamera: (name) => answer(name, false),
  letIn: answer,
  notNow: decline,
  await: () => { state.absent.isAwaited = !state.absent.isAwaited; draw(); },
  clearPeople: () => { people.clearPeople(); draw(); },
  forgetToken: () => { state.tokenFromLink = false; draw(); },
  shareLink: () => navigator.share({ url: page.link.value, title: text('title') }).catch(() => {}),
  unlock: () => ring.unlock(),
  notify: () => ring.askToNotify(),
  check: () => ask(null, { confirm: true }),
  goOffline: () => goOffline(),
  mute: () => media.mute(!media.muted),
  cameraOff: () => media.setCamera(!media.video),
  share: () => (media.screen ? media.stopSharing() : media.share()),
  flip: () => media.flip(),
  fullscreen: () => {
    if (document.fullscreenElement) document.exitFullscreen();
    else document.documentElement.requestFullscreen();
  },
  pip: () => stage.pictureInPicture(),
  hangUp: () => endCall('sayYouHungUp'),
  add: () => togglePanel('add'),
  chat: () => togglePanel('chat'),
  more: () => togglePanel('more'),
  closePanel: () => togglePanel(state.panel),
};

/** What a form does. */
const submissions = {
  login: submitLogin,
  dial: () => dial(page.callee.value),
  addForm: () => { dial(page.addName.value); page.addName.value = ''; },
  chatForm: sendText,
};

addEventListener('click', ({ target }) => {
  const button = target.closest?.('button[type="button"]');
  if (button) actions[button.dataset.action ?? button.id]?.(button.dataset.name);
});
addEventListener('submit', (event) => {
  event.preventDefault();
  submissions[event.target.id]();
});
addEventListener('keydown', ({ key }) => { if (key === 'Escape' && state.panel) togglePanel(state.panel); });
page.microphone.onchange = () => media.choose('audio', page.microphone.value);
page.camera.onchange = () => media.choose('video', page.camera.value);
page.speaker.onchange = () => {
  media.choose('output', page.speaker.value);
  stage.setOutput(page.speaker.value);
};
page.audioOnly.onchange = () => media.setCamera(!page.audioOnly.checked);
document.addEventListener('fullscreenchange', draw);
addEventListener('hashchange', followLink);
addEventListener('pagehide', () => {
  group?.leave();
  for (const name of callers.names) callers.refuse(name, 'hangup');
});
setInterval(lookForAbsent, LOOK_MS);
setInterval(() => { if (page.devices.offsetParent) page.level.value = media.level(); }, LEVEL_MS);

translate(document);
page.name.value = state.name;
page.token.value = people.recall('token');
page.keepToken.checked = page.token.value !== '';
followLink();
loadConfig().then(start);

/** A page that is loaded again goes online by itself, if it still can. */
function start() {
  if (state.line !== 'off' || state.loginLink || people.recall('online', true) === '') return;
  if (state.config.tokens && page.token.value === '') return say('sayTokenAgain');
  if (state.name) goOnline(state.name, page.token.value);
}
