/*
 * The page: its elements, the status line, and the wiring between the line to the server
 * (signaling.js) and the one call there can be at a time (call.js).
 *
 * This file owns every word the user reads. It never looks into an SDP or a candidate, and shows
 * what comes from others as text only, never as HTML.
 */

import { Call, sdpOf } from './call.js';
import { Signaling } from './signaling.js';

const page = Object.fromEntries([...document.querySelectorAll('[id]')].map((e) => [e.id, e]));
const NAME_KEY = 'name';
const TOKEN_KEY = 'token';
const TITLE = document.title;

const REFUSALS = {
  'name-taken': 'This name is taken. Choose another.',
  'invalid-name': 'This is not a valid name: 1 to 128 bytes, without control characters.',
  unauthorized: 'The server does not let you in: name and token do not belong together.',
};

const ENDINGS = {
  'hung-up': (peer) => `${peer} hung up.`,
  cancelled: (peer) => `${peer} stopped calling.`,
  busy: (peer) => `${peer} is busy.`,
  declined: (peer) => `${peer} declined the call.`,
  gone: (peer) => `${peer} went away.`,
  lost: (peer) => `The connection to ${peer} was lost.`,
  'no-answer': (peer) => `No answer: the call with ${peer} was given up.`,
  'no-route': (peer) => `No connection to ${peer} could be made. A firewall may be in the way.`,
  'not-understood': (peer) => `${peer} sent something that this browser does not understand.`,
  'line-lost': () => 'The connection to the server was lost, and the call with it.',
  'media-refused': () => 'Camera or microphone were refused. Allow them here, then call again.',
  'not-opened': () => 'Camera, microphone or connection could not be opened.',
  'user-not-found': (peer) => `${peer} is not there.`,
  'user-unreachable': (peer) => `${peer} cannot be reached right now.`,
  'rate-limited': () => 'Too many messages: the server wants you to wait a moment.',
  'own-hangup': (peer) => `You hung up. The call with ${peer} is over.`,
  'own-decline': (peer) => `You declined the call from ${peer}.`,
};

const TURNED_AWAY_PER_SECOND = 10;
const NO_CONFIG = { iceServers: [], tlsPort: null, tokens: false };
const config = fetch('config.json').then((answer) => answer.json()).catch(() => NO_CONFIG);
const signaling = new Signaling(socketUrl(), {
  online: onOnline,
  lost: onLost,
  refused: onRefused,
  message: onMessage,
});

let me = null; // our name, once the server has granted it
let turnServers = []; // what the server lets only its users use
let call = null;
let toCall = null; // whom to call as soon as we are online
let turnedAway = []; // when we told callers why not, in the last second
const unsentLeaves = new Set(); // whom we hung up on while there was no line

page.name.value = recall(NAME_KEY);
page.token.value = recall(TOKEN_KEY);
page.keepToken.checked = page.token.value !== '';
config.then(({ tokens }) => {
  page.access.hidden = !tokens;
  page.token.required = tokens;
});
page.name.focus();
followLink();
if (!navigator.mediaDevices) sayInsecure();

listen(page.login, 'submit', goOnline);
listen(page.dial, 'submit', () => dial(nameIn(page.callee)));
listen(page.copyLink, 'click', copyLink);
listen(page.goOffline, 'click', goOffline);
listen(page.answer, 'click', () => call.answer());
listen(page.decline, 'click', () => call.end('own-decline', 'declined'));
listen(page.hangUp, 'click', () => call.end('own-hangup', 'hangup'));
listen(page.mute, 'click', () => toggle(page.mute, 'audio'));
listen(page.cameraOff, 'click', () => toggle(page.cameraOff, 'video'));
addEventListener('pagehide', () => call?.end('own-hangup', 'hangup'));
addEventListener('hashchange', followLink);

// --- the line to the server -----------------------------------------------------------------

function goOnline() {
  say('Going online…');
  signaling.goOnline(nameIn(page.name), page.token.value.trim());
}

function onOnline(name, iceServers) {
  me = name;
  turnServers = iceServers;
  remember(NAME_KEY, me);
  remember(TOKEN_KEY, page.keepToken.checked ? page.token.value.trim() : '');
  page.link.value = new URL(`#call=${encodeURIComponent(me)}`, new URL('.', location.href)).href;
  for (const peer of unsentLeaves) signaling.send('leave', peer, { reason: 'hangup' });
  unsentLeaves.clear();
  say(`You are online as ${me}.`);
  show();
  if (call) {
    call.lineIsBack();
    describe();
  } else if (toCall !== null) {
    dial(toCall);
  }
}

function onLost(reason) {
  const fate = call && (call.state === 'connected' ? 'The call goes on.' : 'The call is over.');
  call?.lineIsLost();
  const why = reason ? `The server closed the connection: ${reason}.`
    : me === null ? 'The server cannot be reached.'
    : 'The connection to the server was lost.';
  say(`${why} ${fate ?? ''} Trying again…`);
}

function onRefused(reason) {
  goOffline();
  if (reason === 'unauthorized') {
    if (page.token.value.trim() === recall(TOKEN_KEY)) remember(TOKEN_KEY, '');
    page.token.value = '';
  }
  say(REFUSALS[reason] ?? 'The server refused the login.');
}

function goOffline() {
  call?.end('own-hangup', 'hangup');
  signaling.goOffline();
  me = null;
  say('You are offline.');
  show();
}

function onMessage(message) {
  if (message.type === 'error') return onError(message);
  const from = String(message.fromUser);
  const ours = call?.peer === from;
  if (message.signalType === 'offer' && !(ours && call.continuedBy(message))) onCall(from, message);
  else if (ours) call.receive(message);
}

function onError({ code, message, signalType, toUser }) {
  if (call?.peer === String(toUser)) call.undelivered(signalType, code);
  if (signalType === 'candidate' && code !== 'rate-limited') return;
  if (code === 'rate-limited') say(ENDINGS[code]());
  else if (!(code in ENDINGS)) say(`The server says: ${message}`);
}

// --- calls ----------------------------------------------------------------------------------

function dial(peer) {
  toCall = null;
  page.callee.value = peer;
  page.goOnline.textContent = 'Go online';
  if (peer === me) return say('This is your own name. Give your link to somebody else.');
  if (!signaling.isOnline) return say('There is no connection to the server yet. Trying again…');
  call = newCall(peer);
  call.dial();
  onChange(call);
}

/** An offer that does not belong to the call we have. */
function onCall(peer, offer) {
  if (sdpOf(offer) === '') return;
  if (offer.restart) return turnAway(peer, 'hangup');
  if (call && call.peer !== peer) return turnAway(peer, 'busy');
  call?.end('hung-up');
  call = newCall(peer);
  call.ring(offer);
  onChange(call);
}

/** Tells a caller why there is no call, unless so many call that it would use up our message rate. */
function turnAway(peer, reason) {
  const now = performance.now();
  turnedAway = turnedAway.filter((time) => now - time < 1000);
  if (turnedAway.length === TURNED_AWAY_PER_SECOND) return;
  turnedAway.push(now);
  signaling.send('leave', peer, { reason });
}

function newCall(peer) {
  const send = (signalType, fields) => {
    const sent = signaling.send(signalType, peer, fields);
    if (!sent && signalType === 'leave') unsentLeaves.add(peer);
    return sent;
  };
  const configuration = config.then(({ iceServers }) => ({
    iceServers: [...iceServers, ...turnServers],
    // For whoever wants to see that the TURN server works: no other way is taken.
    iceTransportPolicy: linkFields().has('relay') ? 'relay' : 'all',
  }));
  return new Call({ me, peer, configuration, send, onChange });
}

function onChange(changed) {
  if (changed !== call) return;
  const { state, ending, peer } = call;
  if (state === 'ended') {
    call = null;
    page.callee.value = peer;
    if (ending === 'not-opened' && !navigator.mediaDevices) sayInsecure();
    else say((ENDINGS[ending] ?? ENDINGS['user-unreachable'])(peer));
  } else {
    describe();
  }
  show();
}

function describe() {
  const { state, peer, interrupted } = call;
  const words = {
    calling: `Calling ${peer}…`,
    ringing: `${peer} is calling you.`,
    connecting: `Connecting to ${peer}…`,
    connected: `In a call with ${peer}.`,
  };
  if (interrupted) say(`Nothing comes from ${peer} right now. Waiting…`);
  else say(`${words[state]} ${missingDevices()}`);
}

function missingDevices() {
  if (!call.localStream) return '';
  const sound = call.localTracks('audio').length > 0;
  const picture = call.localTracks('video').length > 0;
  if (sound && picture) return '';
  if (sound) return 'You have no working camera: you can be heard but not seen.';
  if (picture) return 'You have no working microphone: you can be seen but not heard.';
  return 'You have no working camera or microphone: you can only watch and listen.';
}

function toggle(button, kind) {
  const off = button.getAttribute('aria-pressed') !== 'true';
  button.setAttribute('aria-pressed', off);
  call.enable(kind, !off);
}

// --- what is to be seen ---------------------------------------------------------------------

/** Shows the one part of the page that fits, and moves the focus there if it has changed. */
function show() {
  const part = call === null ? (me === null ? page.login : page.home)
    : call.state === 'ringing' ? page.incoming
    : page.call;
  const changed = part.hidden;
  for (const other of [page.login, page.home, page.incoming, page.call]) {
    other.hidden = other !== part;
  }
  showCall();
  if (changed) part.querySelector(':is(input, button):enabled').focus();
}

function showCall() {
  document.title = call?.state === 'ringing' ? `${call.peer} is calling` : TITLE;
  page.caller.textContent = call ? `${call.peer} is calling` : '';
  page.peer.textContent = call?.peer ?? '';
  setStream(page.remote, call?.remoteStream ?? null);
  setStream(page.local, call?.localStream ?? null);
  for (const [button, kind] of [[page.mute, 'audio'], [page.cameraOff, 'video']]) {
    button.disabled = !call || call.localTracks(kind).length === 0;
    if (!call) button.setAttribute('aria-pressed', false);
  }
}

function setStream(video, stream) {
  if (video.srcObject !== stream) video.srcObject = stream;
}

/**
 * A link to the page may name the person to call: then one press does both. It may also say who we
 * are and prove it: then we go online without a press, and the proof must not stay where others can
 * see it. A call waits for a press in any case: whoever made the link must not get our camera.
 */
function followLink() {
  const link = linkFields();
  const [user, token, peer] = ['user', 'token', 'call'].map((key) => link.get(key));
  if (token) {
    link.delete('user');
    link.delete('token');
    const rest = link.size ? `#${link}` : '';
    history.replaceState(null, '', location.pathname + location.search + rest);
  }
  if (peer) page.callee.value = peer;
  if (me !== null) return;
  if (user && token) {
    toCall = null;
    page.goOnline.textContent = 'Go online';
    page.name.value = user;
    page.token.value = token;
    goOnline();
  } else if (peer) {
    toCall = peer;
    page.goOnline.textContent = `Go online and call ${peer}`;
  }
}

function linkFields() {
  return new URLSearchParams(location.hash.slice(1));
}

/** The same words again would only be read out again. */
function say(words) {
  if (page.status.textContent !== words.trim()) page.status.textContent = words.trim();
}

async function sayInsecure() {
  const words = 'Browsers give camera and microphone only to pages from https:// or localhost.';
  say(words);
  const { tlsPort } = await config;
  if (tlsPort === null || page.status.textContent !== words) return;
  const link = document.createElement('a');
  link.href = `https://${location.hostname}:${tlsPort}${location.pathname}${location.hash}`;
  link.textContent = `Open ${link.host} over https`;
  page.status.append(' ', link, '.');
}

/** Without https there is no clipboard, so the text is at least selected for the user to copy. */
async function copyLink() {
  page.link.select();
  try {
    await navigator.clipboard.writeText(page.link.value);
  } catch {
    if (!document.execCommand('copy')) return say('The link is selected. Copy it with Ctrl+C.');
  }
  say('Link copied.');
}

// --- small things ---------------------------------------------------------------------------

function listen(element, event, action) {
  element.addEventListener(event, (e) => {
    e.preventDefault();
    action();
  });
}

/** One spelling for names that look the same, whatever keyboard they were typed on. */
function nameIn(input) {
  return input.value.trim().normalize();
}

function socketUrl() {
  const url = new URL('.', location.href);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  return url.href;
}

function remember(key, value) {
  try {
    if (value === '') localStorage.removeItem(key);
    else localStorage.setItem(key, value);
  } catch { /* a browser may forbid it; then it is typed again */ }
}

function recall(key) {
  try {
    return localStorage.getItem(key) ?? '';
  } catch {
    return '';
  }
}
