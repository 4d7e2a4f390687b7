/*
 * The state and the wiring. Two values say what is going on: `line`, which is off, connecting or online,
 * and `call`, which is none, asking (for camera and microphone), calling, ringing, connecting or talking.
 * Everything that happens changes the state and calls `draw`.
 */

import { Chat, LONGEST_TEXT } from './chat.js';
import { Group } from './group.js';
import { Media } from './media.js';
import { MAX_CANDIDATES, MAX_SDP, sdpOf } from './peer.js';
import * as people from './people.js';
import { Ring } from './ring.js';
import { Signaling } from './signaling.js';
import { Stage } from './stage.js';
import { page, render, renderDevices } from './view.js';
import { text, translatePage } from './words.js';

const NAME_KEY = 'name';
const TOKEN_KEY = 'token';
const CHECKED_KEY = 'checked';
const ONLINE_KEY = 'online';

const ASKING_MS = 60_000;
const RINGING_MS = 65_000; // the caller gives up a little earlier
const RETURN_MS = 10_000; // for a caller's line to come back
const MOST_CALLERS = 3;
const MAX_CANDIDATE = 4_000;
const NOTICE_MS = 8_000; // in a call, where it lies over the pictures
const CONFIG_PAUSES_MS = [1_000, 3_000, 10_000, 30_000];

// Why a call ended, or did not begin; the codes of the server and the reasons of peers.
const ENDINGS = {
  hangup: 'sayHungUp', busy: 'sayBusy', declined: 'sayDeclined', unable: 'sayUnable', gone: 'sayGone',
  lost: 'sayLost', 'no-answer': 'sayNoAnswer', 'no-route': 'sayNoRoute', 'user-not-found': 'sayAbsent',
  'user-unreachable': 'sayUnreachable', 'too-many-calls': 'sayTooManyCalls',
};
const REFUSALS = {
  'name-taken': 'sayNameTaken', 'invalid-name': 'sayInvalidName', unauthorized: 'sayUnauthorized',
  'other-tab': 'sayOtherTab', 'other-tab-busy': 'sayOtherTabBusy',
};

const state = {
  line: 'off', call: 'none',
  me: null, // our name, once the server has granted it
  name: people.recall(NAME_KEY), // the name that this device knows
  token: '', tokenFromLink: false,
  turnServers: [],
  config: { iceServers: [], tlsPort: null, tokens: false, addresses: [] },
  callers: new Map(), // who rings us: name → { offer, candidates, timer, quiet }
  target: null, answering: false, confirm: false, opened: false, // while asking
  invitation: null, loginLink: null, absent: null,
  notice: null, panel: null, secureLink: null,
};

let group = null;
let attempt = null; // at opening camera and microphone
let noticeTimer;

const media = new Media(onMedia, onDeviceGone);
const ring = new Ring(draw);
const stage = new Stage(page.stage);
const chat = new Chat(page);
const awaited = new people.Awaited((name) => signaling.send('candidate', name, { candidate: null }), onBack);
const signaling = new Signaling(socketUrl(), {
  online: onOnline, lost: onLost, refused: onRefused, message: onMessage,
  busy: () => group !== null,
  unsettled: () => !['none', 'talking'].includes(state.call),
});

function draw() {
  const { call, callers } = state;
  if (group) state.call = group.stood ? 'talking' : [...group.peers.values()].some(({ met }) => met) ? 'connecting' : 'calling';
  else if (call !== 'asking') state.call = callers.size > 0 ? 'ringing' : 'none';
  const names = [...callers.keys()].filter((name) => !callers.get(name).quiet);
  if (names.length > 0) ring.start(text('isCalling', { name: names.at(-1) }));
  else ring.stop();
  ring.setTitle(group?.stood && group.connected.length > 0 ? text('inCallWith', { name: group.connected[0].name }) : text('title'));
  ring.stayAwake(group !== null);
  render(state, { media, ring, stage, group, chat, awaited });
}

function say(key, values = {}) {
  clearTimeout(noticeTimer);
  state.notice = key && { key, values };
  if (group) noticeTimer = setTimeout(() => say(null), NOTICE_MS);
  draw();
}

// --- the line to the server -----------------------------------------------------------------

function goOnline(name, token = '', tokenFromLink = false) {
  Object.assign(state, { line: 'connecting', me: null, token, tokenFromLink });
  say('sayGoingOnline');
  signaling.goOnline(name, token, name === people.recall(NAME_KEY));
}

function submitLogin() {
  const name = people.cleanName(page.name.value);
  if (name === '') return say('sayNoName');
  state.loginLink = null;
  goOnline(name, page.token.value.trim());
}

function onOnline(name, turnServers) {
  const isNew = state.me === null;
  Object.assign(state, { line: 'online', me: name, name, turnServers });
  people.remember(NAME_KEY, name);
  people.remember(ONLINE_KEY, '1', true);
  if (isNew && !state.tokenFromLink) people.remember(TOKEN_KEY, page.keepToken.checked ? state.token : '');
  group?.lineIsBack();
  if (group) return say(null);
  const { invitation } = state;
  say('sayOnline', { name });
  if (isNew && invitation && page.loginView.dataset.pressed) dial(invitation);
  delete page.loginView.dataset.pressed;
}

function onLost(reason) {
  state.line = 'connecting';
  if (reason) say('sayClosed', { name: reason });
  else if (group?.stood) say('sayLineLostInCall');
  else say(state.me === null ? 'sayNoServer' : 'sayLineLost');
}

/** A call that stands goes on: it is between the browsers. */
function onRefused(reason) {
  const goesOn = group?.stood;
  const refusal = REFUSALS[reason] ?? 'sayRefused';
  if (reason === 'unauthorized') {
    state.config.tokens = true;
    if (state.token === people.recall(TOKEN_KEY)) people.remember(TOKEN_KEY, '');
    page.token.value = '';
  }
  goOffline(refusal);
  if (goesOn) {
    state.afterwards = refusal;
    say('sayRefusedInCall');
  }
}

function goOffline(words = 'sayOffline') {
  if (group && !group.stood) endCall();
  if (state.call === 'asking') stopAsking();
  for (const name of [...state.callers.keys()]) forget(name);
  signaling.goOffline();
  awaited.stop();
  people.remember(ONLINE_KEY, '', true);
  Object.assign(state, { line: 'off', me: null, tokenFromLink: false });
  page.name.value = state.name;
  say(words);
}

function onMessage(message) {
  if (message.fromUser === undefined) return onServerError(message);
  const from = String(message.fromUser);
  const size = message.signalType === 'candidate' ? JSON.stringify(message.candidate ?? '').length : 0;
  if (from === '' || from.length > people.MAX_NAME || size > MAX_CANDIDATE || sdpOf(message).length > MAX_SDP) return;
  if (group?.receive(from, message)) return draw();
  const caller = state.callers.get(from);
  const isTheirs = caller && caller.offer.group === message.group;
  if (message.signalType === 'offer') onOffer(from, message);
  else if (message.signalType === 'leave' && caller) onCallerLeft(from, caller, message);
  else if (message.signalType === 'candidate' && isTheirs && caller.candidates.length < MAX_CANDIDATES) {
    caller.candidates.push(message);
  }
}

/** Only the server speaks without a `fromUser`; what it says is shown by its code, in our own words. */
function onServerError({ type, code, signalType, toUser }) {
  if (type !== 'error') return;
  const name = String(toUser);
  if (code === 'user-not-found') awaited.isAbsent(name);
  group?.undelivered(name, signalType, code);
  if (!(code in ENDINGS) && code !== 'rate-limited' && signalType !== 'candidate') say('sayServerError', { name: String(code).slice(0, 40) });
  draw();
}

// --- being called ---------------------------------------------------------------------------

function onOffer(from, offer) {
  if (sdpOf(offer) === '' || offer.restart || offer.mesh) return; // about a call that we are not in
  const { callers } = state;
  const known = callers.get(from);
  if (known && offer.group !== undefined && known.offer.group === offer.group) {
    Object.assign(known, { offer, candidates: [] }); // their line was away, and they call on
    return expectCaller(from, RINGING_MS);
  }
  if (group?.peers.has(from)) group.drop(from, 'lost'); // they have lost the call that we had
  if (people.isNotNow(from)) return turnAway(from, offer, 'declined');
  const isFull = group && (group.isFull || offer.size > 1);
  const isCrossing = state.call === 'asking' && state.target === from;
  if (!known && (isFull || callers.size >= MOST_CALLERS || !(isCrossing || people.mayRing()))) {
    people.missedCall(from);
    turnAway(from, offer, 'busy');
    return draw();
  }
  clearTimeout(known?.timer);
  callers.set(from, { offer, candidates: [], quiet: isCrossing });
  expectCaller(from, RINGING_MS);
  draw();
}

function expectCaller(name, ms) {
  const caller = state.callers.get(name);
  clearTimeout(caller.timer);
  caller.timer = setTimeout(() => callerIsGone(name), ms);
}

/** Without a reason it is the server's: the caller's line is away, and may come back. */
function onCallerLeft(name, caller, { group: id, reason }) {
  if (id !== undefined && id !== caller.offer.group) return;
  if (reason === undefined && id === undefined && caller.offer.group !== undefined) return expectCaller(name, RETURN_MS);
  callerIsGone(name);
}

function callerIsGone(name) {
  const { quiet } = state.callers.get(name);
  forget(name);
  if (!quiet) people.missedCall(name);
  const wasAnswering = state.call === 'asking' && state.answering && state.target === name;
  if (wasAnswering) stopAsking();
  if (!quiet) say('sayMissed', { name });
}

function forget(name) {
  clearTimeout(state.callers.get(name)?.timer);
  state.callers.delete(name);
}

function answer(name, withCamera) {
  if (!group) return ask(name, { withCamera, answering: true });
  const caller = state.callers.get(name);
  forget(name);
  people.called(name);
  group.accept(name, caller);
  draw();
}

function decline(name) {
  const { offer } = state.callers.get(name);
  if (state.target === name && state.answering) stopAsking();
  forget(name);
  people.sayNotNow(name);
  turnAway(name, offer, 'declined');
  say('sayNotNow', { name });
}

/** Tells a caller why there is no call, unless so many call that it would use up our message rate. */
function turnAway(name, offer, reason) {
  if (people.mayTurnAway()) signaling.send('leave', name, { reason, group: offer.group });
}

// --- calling --------------------------------------------------------------------------------

function dial(typed) {
  const name = people.cleanName(typed);
  if (name === '') return say('sayNoName');
  if (name === state.me) return say('sayOwnName');
  if (!signaling.isOnline) return say('sayNoLine');
  if (state.callers.has(name) && state.call !== 'asking') return answer(name, true);
  people.forgiveNotNow(name);
  awaited.stop();
  state.absent = null;
  if (state.invitation === name) state.invitation = null;
  if (!group) return ask(name, { confirm: people.recall(CHECKED_KEY) === '' });
  if (group.isFull) return say('sayFull');
  if (!group.peers.has(name)) group.invite(name);
  people.called(name);
  state.panel = null;
  say('sayInvited', { name });
}

/** Opens camera and microphone, then goes on. Without a name it is for the user to look at. */
async function ask(name, { withCamera = media.wantsCamera, answering = false, confirm = false }) {
  const mine = attempt = {};
  Object.assign(state, { call: 'asking', target: name, answering, confirm, opened: false, notice: null });
  const limit = setTimeout(() => mine === attempt && giveUpAsking('sayAskedTooLong'), ASKING_MS);
  draw();
  const opened = await media.open(withCamera);
  clearTimeout(limit);
  if (mine !== attempt) return;
  if (!opened) return giveUpAsking(navigator.mediaDevices ? 'sayBlocked' : 'sayInsecure');
  state.opened = true;
  if (confirm) return draw();
  begin();
}

function begin() {
  const { target: name } = state;
  people.remember(CHECKED_KEY, '1');
  if (name === null) return cancel();
  if (!state.answering && !signaling.isOnline) return giveUpAsking('sayNoLine');
  attempt = null;
  const caller = state.callers.get(name);
  const { iceServers } = state.config;
  group = new Group({
    me: state.me,
    media: media.tracks,
    own: media.own,
    configuration: {
      iceServers: [...(Array.isArray(iceServers) ? iceServers : []), ...state.turnServers],
      // For whoever wants to see that the TURN server works: no other way is taken.
      iceTransportPolicy: people.linkFields().has('relay') ? 'relay' : 'all',
    },
    send: (signalType, toUser, fields) => signaling.send(signalType, toUser, fields),
    on: { change: onGroupChange, joined: onJoined, gone: onGone, text: onText },
  });
  Object.assign(state, { call: 'calling', target: null, panel: null });
  people.called(name);
  if (caller) {
    forget(name);
    if (typeof caller.offer.group === 'string') group.id = caller.offer.group.slice(0, 64);
    group.accept(name, caller);
  } else {
    group.invite(name);
  }
  say(null);
  onMedia();
}

function giveUpAsking(words) {
  const { target, answering } = state;
  const caller = state.callers.get(target);
  if (caller) {
    forget(target);
    turnAway(target, caller.offer, 'unable');
    if (!answering) people.missedCall(target);
  }
  stopAsking();
  say(words);
}

function stopAsking() {
  attempt = null;
  Object.assign(state, { call: 'none', target: null, answering: false, opened: false });
  media.close();
}

function cancel() {
  const caller = state.callers.get(state.target);
  if (caller) caller.quiet = false;
  const wasCheck = state.target === null;
  stopAsking();
  say(wasCheck || caller ? null : 'sayCancelled');
}

// --- in a call ------------------------------------------------------------------------------

function onGroupChange() {
  const poor = group?.connected.find((peer) => peer.poor && !peer.interrupted);
  if (poor && !poor.toldPoor) {
    poor.toldPoor = true;
    return say('sayPoor', { name: poor.name });
  }
  draw();
}

function onJoined(name) {
  people.called(name);
  if (group.connected.length > 1) say('sayJoined', { name });
  else say(missingDevice());
}

function missingDevice() {
  const { audio, video } = media.problems;
  if (audio && video) return 'sayNoDevices';
  if (audio) return audio === 'missing' ? 'sayNoMicrophone' : 'sayMicrophoneBlocked';
  if (video) return video === 'missing' ? 'sayNoCamera' : 'sayCameraBlocked';
  return null;
}

function onGone(peer, why) {
  const { name, counted } = peer;
  const words = ENDINGS[why] ?? 'sayHungUp';
  if (group.peers.size === 0) {
    endCall();
    if (why === 'user-not-found') state.absent = name;
    if (state.afterwards) say(state.afterwards);
    else say(why === 'user-not-found' ? null : words, { name });
    state.afterwards = null;
  } else if (counted) {
    say(why === 'hangup' ? 'sayLeft' : words, { name });
  } else if (peer.dialed && !peer.dialed.mesh) {
    say(words, { name });
  } else {
    draw();
  }
}

function hangUp() {
  const name = [...group.peers.keys()][0] ?? '';
  group.leave();
  endCall();
  say(state.afterwards ?? 'sayYouHungUp', { name });
  state.afterwards = null;
}

function endCall() {
  group = null;
  media.close();
  chat.clear();
  stage.clear();
  Object.assign(state, { call: 'none', panel: null });
  if (document.fullscreenElement) document.exitFullscreen();
  if (document.pictureInPictureElement) document.exitPictureInPicture();
}

function onText(name, line) {
  if (!chat.add(name, line.slice(0, LONGEST_TEXT))) return;
  if (state.panel !== 'chat') chat.unread += 1;
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
  if (state.panel === 'chat') chat.unread = 0;
  draw();
  if (state.panel === null && former) page[former].focus();
}

function onMedia() {
  group?.use(media.tracks, media.own);
  renderDevices(media).then(draw);
  draw();
}

function onDeviceGone(slot, isReplaced) {
  if (!group && state.call !== 'asking') return;
  if (slot === 'screen') return say('sayScreenEnded');
  const words = { audio: ['sayMicrophoneGone', 'sayMicrophoneReplaced'], camera: ['sayCameraGone', 'sayCameraReplaced'] };
  say(words[slot][Number(isReplaced)]);
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
  if (!loginLink) return dial(invitation);
  state.loginLink = null;
  goOnline(loginLink.user, loginLink.token, true);
}

function dropInvitation() {
  if (state.loginLink) state.loginLink = null;
  else state.invitation = null;
  draw();
}

function onBack(name) {
  if (state.call === 'none' && signaling.isOnline) dial(name);
  else draw();
}

async function copyLink() {
  page.link.select();
  try {
    await navigator.clipboard.writeText(page.link.value);
  } catch {
    if (!document.execCommand('copy')) return say('saySelected');
  }
  say('sayLinkCopied');
}

function sayInsecure() {
  const { tlsPort } = state.config;
  if (tlsPort !== null && !state.secureLink) {
    const link = state.secureLink = document.createElement('a');
    link.href = `https://${location.hostname}:${tlsPort}${location.pathname}${location.hash}`;
    link.textContent = text('openSecure', { host: link.host });
  }
  say('sayInsecure');
}

// --- the beginning --------------------------------------------------------------------------

async function loadConfig(tries = 0) {
  try {
    const answer = await fetch('config.json');
    Object.assign(state.config, await answer.json());
  } catch {
    const pause = CONFIG_PAUSES_MS[Math.min(tries, CONFIG_PAUSES_MS.length - 1)];
    return setTimeout(() => loadConfig(tries + 1), pause);
  }
  if (!navigator.mediaDevices) return sayInsecure();
  draw();
}

function socketUrl() {
  const url = new URL('.', location.href);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  url.hash = '';
  return url.href;
}

function on(element, event, action) {
  element.addEventListener(event, (e) => {
    e.preventDefault();
    action(e);
  });
}

on(page.login, 'submit', () => { page.loginView.dataset.pressed = '1'; submitLogin(); });
on(page.dial, 'submit', () => dial(page.callee.value));
on(page.addForm, 'submit', () => { dial(page.addName.value); page.addName.value = ''; });
on(page.chatForm, 'submit', sendText);
on(page.followInvitation, 'click', followInvitation);
on(page.dropInvitation, 'click', dropInvitation);
on(page.copyLink, 'click', copyLink);
on(page.shareLink, 'click', () => navigator.share({ url: page.link.value, title: text('title') }).catch(() => {}));
on(page.clearPeople, 'click', () => { people.clearPeople(); draw(); });
on(page.rememberToken, 'click', () => { people.remember(TOKEN_KEY, state.token); page.keepToken.checked = true; state.tokenFromLink = false; say('sayRemembered'); });
on(page.forgetToken, 'click', () => { state.tokenFromLink = false; draw(); });
on(page.unlock, 'click', () => ring.unlock().then(draw));
on(page.notify, 'click', () => ring.askToNotify());
on(page.check, 'click', () => ask(null, { confirm: true }));
on(page.goOffline, 'click', () => goOffline());
on(page.begin, 'click', begin);
on(page.cancel, 'click', cancel);
on(page.mute, 'click', () => media.mute(!media.muted));
on(page.cameraOff, 'click', () => media.setCamera(!media.camera));
on(page.share, 'click', () => (media.screen ? media.stopSharing() : media.share()));
on(page.flip, 'click', () => media.flip());
on(page.fullscreen, 'click', () => (document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen()));
on(page.pip, 'click', () => stage.pictureInPicture());
on(page.hangUp, 'click', hangUp);
on(page.closePanel, 'click', () => togglePanel(state.panel));
for (const name of ['add', 'chat', 'more']) on(page[name], 'click', () => togglePanel(name));
for (const place of [page.peopleList, page.addList]) {
  on(place, 'click', ({ target }) => { const name = target.closest('[data-call]')?.dataset.call; if (name) dial(name); });
}
on(page.awaited, 'click', ({ target }) => {
  const action = target.closest('[data-action]')?.dataset.action;
  if (action === 'wait') awaited.start(state.absent);
  if (action === 'stopWaiting') awaited.stop();
  if (action) state.absent = null;
  draw();
});
on(page.callers, 'click', ({ target }) => {
  const { action, name } = target.closest('[data-action]')?.dataset ?? {};
  if (!state.callers.has(name)) return;
  if (action === 'notNow') decline(name);
  else answer(name, action === 'answer' && media.wantsCamera);
});
on(page.microphone, 'change', () => media.choose('audio', page.microphone.value));
on(page.camera, 'change', () => media.choose('video', page.camera.value));
on(page.speaker, 'change', () => { media.choose('output', page.speaker.value); stage.setOutput(page.speaker.value); });
on(page.audioOnly, 'change', () => media.setCamera(!page.audioOnly.checked));
document.addEventListener('fullscreenchange', draw);
addEventListener('keydown', ({ key }) => { if (key === 'Escape' && state.panel) togglePanel(state.panel); });
addEventListener('hashchange', followLink);
addEventListener('pagehide', () => {
  group?.leave();
  for (const [name, { offer }] of state.callers) turnAway(name, offer, 'hangup');
});
setInterval(() => { if (!page.devices.hidden && page.devices.offsetParent) page.level.value = media.level(); }, 100);

translatePage();
page.callee.placeholder = page.addName.placeholder = text('nameHint');
page.chatText.setAttribute('aria-label', text('chatText'));
page.chatText.placeholder = text('chatText');
page.controls.setAttribute('aria-label', text('controls'));
page.closePanel.setAttribute('aria-label', text('close'));
page.chatList.setAttribute('aria-label', text('chatTitle'));
page.name.value = state.name;
page.token.value = people.recall(TOKEN_KEY);
page.keepToken.checked = page.token.value !== '';
draw();
loadConfig().then(start);

/** A page that is loaded again goes online by itself, if it still can. */
function start() {
  followLink();
  if (state.line !== 'off' || state.loginLink || people.recall(ONLINE_KEY, true) === '') return;
  if (state.config.tokens && page.token.value === '') return say('sayTokenAgain');
  if (state.name) goOnline(state.name, page.token.value);
}
