/*
 * What is to be seen: one `render` draws everything from the state. And the guard: presses that were meant
 * for what stood there before do nothing.
 */

import { linkTo, missedCalls, qrImage, recentPeople } from './people.js';
import { node } from './stage.js';
import { nameOf, put, text, time } from './words.js';

export const page = Object.fromEntries([...document.querySelectorAll('[id]')].map((e) => [e.id, e]));

// A double tap, or a press that was on its way when the view changed, ends within this time.
const SETTLE_MS = 500;
const VIEWS = { login: 'loginView', home: 'homeView', asking: 'askingView', call: 'callView' };
const PANELS = { chat: 'chatTitle', add: 'addTitle', more: 'more' };

let settled = 0; // when presses count again, anywhere
let bannerSettled = 0; // and on the banner
let shown = { view: '', callers: '', panel: null, stood: false };

/** Which view fits the state. A call that stands is shown whatever became of the line to the server. */
function viewOf({ call, me }) {
  if (call === 'asking') return 'asking';
  if (call === 'none' || call === 'ringing') return me === null ? 'login' : 'home';
  return 'call';
}

export function render(state, parts) {
  const view = viewOf(state);
  document.body.dataset.view = view;
  for (const [name, id] of Object.entries(VIEWS)) page[id].hidden = name !== view;
  put(page.notice, state.notice?.key ?? null, state.notice?.values);
  if (state.secureLink && state.notice?.key === 'sayInsecure') page.notice.append(' ', state.secureLink);
  page.who.hidden = state.me === null;
  page.who.dataset.line = state.line;
  if (state.line === 'online') put(page.who, 'online', { name: state.me ?? '' });
  else put(page.who, 'connecting');
  ({ login: renderLogin, home: renderHome, asking: renderAsking, call: renderCall })[view](state, parts);
  renderBanner(state);
  moveFocus(view, state);
}

function renderLogin({ invitation, loginLink, config, me, name }) {
  if (loginLink) put(page.loginTitle, 'goOnlineAs', { name: loginLink.user });
  else if (invitation) put(page.loginTitle, 'asksToCall', { name: invitation });
  else put(page.loginTitle, 'welcome');
  if (loginLink) put(page.loginHint, 'otherUser', { name: loginLink.user, me: name });
  else if (invitation) put(page.loginHint, 'asksToCallHint', { name: invitation });
  else put(page.loginHint, 'welcomeHint');
  page.access.hidden = !config.tokens;
  if (invitation) put(page.goOnline, 'goOnlineAndCall', { name: invitation });
  else put(page.goOnline, 'goOnline');
  renderInvitation({ invitation: null, loginLink, me });
}

function renderInvitation({ invitation, loginLink, me, name }) {
  page.invitation.hidden = !invitation && !loginLink;
  const home = page.homeView.querySelector('.column');
  const place = me === null ? page.loginView : home;
  if (page.invitation.parentElement !== place) place.prepend(page.invitation);
  if (me === null) page.loginView.insertBefore(page.invitation, page.login);
  if (loginLink) {
    put(page.invitationWords, 'otherUser', { name: loginLink.user, me: me ?? name ?? '' });
    page.invitationWords.hidden = me === null; // the title says it already
    put(page.followInvitation, 'goOnlineAs', { name: loginLink.user });
    if (me) put(page.dropInvitation, 'stayAs', { name: me });
    else put(page.dropInvitation, 'cancel');
  } else if (invitation) {
    page.invitationWords.hidden = false;
    put(page.invitationWords, 'asksToCall', { name: invitation });
    put(page.followInvitation, 'callAgain', { name: invitation });
    put(page.dropInvitation, 'notNow');
  }
}

function renderHome(state, { ring, awaited }) {
  const { config, me, tokenFromLink } = state;
  renderInvitation(state);
  page.remember.hidden = !tokenFromLink;
  page.unlock.hidden = ring.mayRing;
  page.notify.hidden = !ring.canAskToNotify;
  renderLink(linkTo(me, config));
  put(page.check, 'checkDevices');
  renderPeople();
  const waiting = awaited.name ?? state.absent;
  page.awaited.hidden = waiting === null;
  if (waiting === null) return;
  const key = JSON.stringify([waiting, awaited.name]);
  list(page.awaited, key, () => {
    const [words, button] = [node('span'), node('button')];
    button.type = 'button';
    button.dataset.action = awaited.name ? 'stopWaiting' : 'wait';
    put(words, awaited.name ? 'waiting' : 'sayAbsent', { name: waiting });
    put(button, awaited.name ? 'stopWaiting' : 'callWhenBack', { name: waiting });
    return [words, button];
  });
}

function renderLink(link) {
  const place = document.body.dataset.view === 'call' ? page.addSharing : page.linkTitle.parentElement;
  if (page.sharing.parentElement !== place) place.append(page.sharing);
  page.shareLink.hidden = !navigator.share;
  if (page.link.value === link) return;
  page.link.value = link;
  page.qr.src = qrImage(link);
  page.qr.alt = text('qr');
}

function renderPeople() {
  const missed = missedCalls();
  const others = recentPeople().filter((name) => !missed.some((call) => call.name === name));
  const people = [...missed, ...others.map((name) => ({ name }))];
  page.people.hidden = people.length === 0;
  list(page.peopleList, JSON.stringify(people), () => people.map((person) => personItem(person)));
}

function personItem({ name, times, at }) {
  const item = node('li');
  const button = node('button', 'person');
  button.type = 'button';
  button.dataset.call = name;
  const words = node('span', 'sr');
  words.textContent = `${text('call')} `;
  button.append(nameOf(name), words);
  if (times) {
    const missed = node('span', 'soft missed');
    put(missed, times > 1 ? 'missedOften' : 'missed', { times, time: time(at) });
    button.append(missed);
  }
  item.append(button);
  return item;
}

function renderAsking(state, { media }) {
  const { target, confirm, answering } = state;
  const name = target ?? '';
  if (target === null) put(page.askingTitle, 'checkTitle');
  else put(page.askingTitle, answering ? 'answeringTitle' : 'askingTitle', { name });
  const opened = media.isOpen;
  if (!state.opened) put(page.askingHint, 'askingHint');
  else if (target === null) put(page.askingHint, 'checkHint');
  else put(page.askingHint, 'readyHint', { name });
  placeDevices(page.askingDevices, media);
  page.askingDevices.hidden = !state.opened;
  if (page.own.srcObject !== media.stream) page.own.srcObject = media.stream;
  page.own.hidden = media.camera === null;
  page.own.classList.toggle('mirrored', media.isMirrored);
  put(page.previewEmpty, opened && !media.camera ? 'noPicture' : null);
  page.begin.hidden = !(confirm && state.opened);
  put(page.begin, target === null ? 'back' : 'callNow', { name });
  page.cancel.hidden = target === null && state.opened;
}

function renderCall(state, { media, stage, group, chat }) {
  const { panel, me, config } = state;
  const peers = [...group.peers.values()].filter((peer) => peer.counted || (peer.dialed && !peer.dialed.mesh) || !group.stood);
  stage.draw(peers.map((peer) => personOf(peer)), { name: me, stream: ownStream(media), ...media.own, mirrored: media.isMirrored });
  const others = group.connected;
  const first = peers[0]?.name ?? '';
  if (others.length > 1) put(page.callTitle, 'inCallWithMany', { count: others.length });
  else put(page.callTitle, { calling: 'calling', connecting: 'reaching', talking: 'inCallWith' }[state.call], { name: others[0]?.name ?? first });
  press(page.mute, media.own.muted, media.audio === null, media.own.muted ? 'mic-off' : 'mic');
  press(page.cameraOff, !media.own.camera, false, media.own.camera ? 'cam' : 'cam-off');
  press(page.share, media.own.screen, false);
  page.share.hidden = !media.canShareScreen;
  page.add.disabled = group.isFull || !group.stood;
  page.unread.hidden = chat.unread === 0;
  page.unread.textContent = chat.unread > 99 ? '99+' : chat.unread;
  page.unread.setAttribute('aria-label', text('unread', { count: chat.unread }));
  page.panel.hidden = panel === null;
  for (const name of Object.keys(PANELS)) {
    page[`${name}Panel`].hidden = panel !== name;
    page[name].setAttribute('aria-expanded', panel === name);
  }
  if (panel) put(page.panelTitle, PANELS[panel]);
  if (panel === 'more') placeDevices(page.moreDevices, media);
  if (panel === 'add') {
    renderLink(linkTo(me, config));
    const people = recentPeople().filter((name) => !group.peers.has(name));
    list(page.addList, JSON.stringify(people), () => people.map((name) => personItem({ name })));
  }
  page.fullscreen.hidden = !document.fullscreenEnabled;
  page.fullscreen.setAttribute('aria-pressed', document.fullscreenElement !== null);
  page.pip.hidden = !stage.canLeaveThePage;
  page.flip.hidden = media.cameras < 2 || !media.camera;
}

function personOf(peer) {
  const { name, remote, far, poor, connected, interrupted, met } = peer;
  const condition = interrupted ? ['interrupted'] : connected ? null
    : met ? ['reaching', { name }] : ['calling', { name }];
  return { name, stream: remote, ...far, camera: far.camera && connected, poor: poor && !interrupted, condition };
}

let screenStream = null;

/** Our own tile shows what the others see. */
function ownStream(media) {
  if (!media.screen) return media.stream;
  if (screenStream?.getTracks()[0] !== media.screen) screenStream = new MediaStream([media.screen]);
  return screenStream;
}

function press(button, pressed, disabled, symbol) {
  button.setAttribute('aria-pressed', pressed);
  button.disabled = disabled;
  if (symbol) button.querySelector('use').setAttribute('href', `#${symbol}`);
}

function placeDevices(place, media) {
  if (page.devices.parentElement !== place) place.append(page.devices);
  page.devices.hidden = false;
  page.audioOnly.checked = !media.wantsCamera;
  page.audioOnly.closest('label').hidden = place !== page.askingDevices;
}

/** Fills the pickers; labels are there only once the user has allowed a device. */
export async function renderDevices(media) {
  const { microphones, cameras, speakers } = await media.devices();
  media.cameras = cameras.length;
  const canChooseOutput = 'setSinkId' in HTMLMediaElement.prototype;
  for (const [select, kind, all] of [
    [page.microphone, 'audio', microphones], [page.camera, 'video', cameras], [page.speaker, 'output', canChooseOutput ? speakers : []],
  ]) {
    select.hidden = select.labels[0].hidden = all.length === 0;
    const options = all.map(({ deviceId, label }) => [deviceId, label || text('systemDefault')]);
    list(select, JSON.stringify(options), () => options.map(([id, label]) => new Option(label.slice(0, 80), id)));
    const track = { audio: media.audio, video: media.camera }[kind];
    select.value = media.chosen[kind] || track?.getSettings().deviceId || all[0]?.deviceId || '';
  }
}

function renderBanner({ callers, call }) {
  const ringing = [...callers.keys()].filter((name) => !callers.get(name).quiet);
  const isJoining = !['none', 'asking', 'ringing'].includes(call);
  page.banner.hidden = ringing.length === 0;
  const key = JSON.stringify([ringing, isJoining]);
  const former = shown.callers;
  shown.callers = key;
  if (key === former) return;
  const now = performance.now();
  // What appears must not be pressed by chance, nor what it uncovers when it goes.
  bannerSettled = now + SETTLE_MS;
  if (former && JSON.parse(former)[0].some((name) => !ringing.includes(name))) settled = now + SETTLE_MS;
  if (ringing.length === 0) return page.callers.replaceChildren();
  put(page.bannerTitle, isJoining ? 'wantsToJoin' : 'isCalling', { name: ringing.at(-1) });
  page.callers.replaceChildren(...ringing.map((name) => callerItem(name, isJoining, ringing.length > 1)));
}

function callerItem(name, isJoining, withName) {
  const item = node('li');
  if (withName) item.append(nameOf(name));
  const actions = [[isJoining ? 'letIn' : 'answer', 'primary'], ['notNow', 'danger'], ['answerWithoutCamera', 'quiet']];
  for (const [action, look] of isJoining ? actions.slice(0, 2) : actions) {
    const button = node('button', look);
    button.type = 'button';
    button.dataset.action = action;
    button.dataset.name = name;
    put(button, action);
    button.setAttribute('aria-describedby', 'bannerTitle');
    item.append(button);
  }
  return item;
}

/**
 * The focus moves only when the view changes, to a heading: never to a field, which would open a phone's
 * keyboard, nor to a button that acts. Somebody who types goes on typing while the banner is read out.
 */
function moveFocus(view, { callers, panel }) {
  const { view: former, ringing: rang, panel: formerPanel } = shown;
  const ringing = [...callers.values()].some(({ quiet }) => !quiet);
  Object.assign(shown, { view, ringing, panel });
  if (view !== former) {
    settled = performance.now() + (former === '' ? 0 : SETTLE_MS);
    if (former !== '') page[VIEWS[view]].querySelector('h2').focus({ preventScroll: true });
    page.main.scrollTop = 0;
  }
  if (panel !== formerPanel && panel !== null) page.panelTitle.focus();
  const typing = document.activeElement?.matches('input, select, textarea');
  if (ringing && !rang && !typing) page.bannerTitle.focus({ preventScroll: true });
}

/** Children are made anew only when they are others, so that nobody loses the focus for nothing. */
function list(element, key, make) {
  if (element.dataset.key === key) return;
  element.dataset.key = key;
  element.replaceChildren(...make());
}

function guard(event) {
  const isKey = event.type === 'keydown';
  const presses = isKey && (event.key === 'Enter' || (event.key === ' ' && event.target.closest?.('button, summary, label')));
  if (isKey && !presses) return;
  const now = performance.now();
  const onBanner = page.banner.contains(event.target);
  if (!event.repeat && now >= settled && (!onBanner || now >= bannerSettled)) return;
  event.preventDefault();
  event.stopImmediatePropagation();
}

for (const type of ['click', 'submit', 'keydown']) addEventListener(type, guard, { capture: true });
