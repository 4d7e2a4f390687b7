/*
 * Being online: login, a lost connection to the server, a refused login, and messages from the server.
 */

import { ENDINGS, dial, endCall } from './call.js';
import { isTooLarge, sdpOf } from './peer.js';
import * as people from './people.js';
import { callers, draw, say, signaling, state } from './state.js';
import { page } from './view.js';

const LONGEST_CODE = 40;

const REFUSALS = {
  __proto__: null,
  'name-taken': 'sayNameTaken', 'invalid-name': 'sayInvalidName', unauthorized: 'sayUnauthorized',
  'other-tab': 'sayOtherTab', 'other-tab-busy': 'sayOtherTabBusy',
};

Object.assign(signaling.on, { online: onOnline, lost: onLost, refused: onRefused, message: onMessage });

export function goOnline(name, token = '', tokenFromLink = false) {
  const none = { me: null, loginLink: null, callOnceOnline: false };
  Object.assign(state, { line: 'connecting', token, tokenFromLink, ...none });
  say('sayGoingOnline');
  signaling.goOnline(name, token, name === people.recall('name'));
}

export function submitLogin() {
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
  state.group?.lineIsBack();
  if (state.group) return say(null);
  say('sayOnline', { name });
  if (state.callOnceOnline) dial(state.invitation);
  state.callOnceOnline = false;
}

function onLost() {
  state.line = 'connecting';
  if (state.group?.stood) say('sayLineLostInCall');
  else say('sayNoServer');
}

/** The server refused the login. An established call goes on, because it needs no server. */
function onRefused(reason) {
  const refusal = REFUSALS[reason] ?? 'sayRefused';
  if (reason === 'unauthorized') {
    state.config.tokens = true;
    if (state.token === people.recall('token')) people.remember('token', '');
    page.token.value = '';
  }
  goOffline(refusal);
  if (!state.group) return;
  state.refusal = refusal; // said again after the call
  say('sayRefusedInCall');
}

export function goOffline(words = 'sayOffline') {
  if (state.group && !state.group.stood) endCall(null);
  for (const name of callers.names) callers.take(name);
  signaling.goOffline();
  people.remember('online', '', true);
  Object.assign(state, { line: 'off', me: null, tokenFromLink: false, absent: null, asking: null });
  page.name.value = state.name;
  say(words);
}

export function rememberToken() {
  people.remember('token', state.token);
  page.keepToken.checked = true;
  state.tokenFromLink = false;
  say('sayRemembered');
}

function onMessage(message) {
  if (message.fromUser === undefined) return onServerError(message);
  const from = String(message.fromUser);
  if (from.length > people.MAX_NAME || isTooLarge(message)) return;
  if (state.group?.receive(from, message)) return draw();
  if (message.signalType === 'offer') onOffer(from, message);
  else callers.receive(from, message);
}

/** Only the server's messages have no `fromUser`. Its errors are shown by their code, in our own words. */
function onServerError({ type, code, signalType, toUser }) {
  if (type !== 'error') return;
  const name = String(toUser);
  if (code === 'user-not-found' && state.absent?.name === name) state.absent.isProbed = false;
  state.group?.undelivered(name, signalType, code);
  const isPlain = code in ENDINGS || signalType === 'candidate';
  if (isPlain) draw();
  else say('sayServerError', { name: String(code).slice(0, LONGEST_CODE) });
}

function onOffer(from, offer) {
  if (sdpOf(offer) === '' || offer.restart || offer.mesh) return; // about a call that we are not in
  if (state.group?.peers.has(from)) state.group.drop(from, 'lost'); // they have lost the call that we had
  callers.ring(from, offer, state.group !== null && (state.group.isFull || offer.size > 1));
}
