/*
 * Drawing the page: one `render` draws everything from the state. Just after the view has changed, `guard`
 * ignores presses, because they were meant for what was there before.
 */

import { linkTo, missedCalls, qrImage, recentPeople } from './people.js';
import { actionButton, nameOf, node, put, sentence, text } from './words.js';

export const page = Object.fromEntries([...document.querySelectorAll('[id]')].map((e) => [e.id, e]));

// A double tap, or a press that was on its way when the view changed, ends within this time.
const SETTLE_MS = 500;
const VIEWS = { login: renderLogin, home: renderHome, asking: renderAsking, call: renderCall };
const PANELS = { chat: 'chat', add: 'addTitle', more: 'more' };
const LONGEST_LABEL = 80; // of a device

let settled = 0; // when presses count again, anywhere
let bannerSettled = 0; // and on the banner
let shown = { view: '', ringing: [], panel: null };

/** Which view fits the state. A call that stands is shown whatever became of the line to the server. */
function viewOf({ call, me }) {
  if (call === 'asking') return 'asking';
  if (call === 'none' || call === 'ringing') return me === null ? 'login' : 'home';
  return 'call';
}

/** `parts` are the objects of state.js: `{ media, ring, stage, chat }`. */
export function render(state, parts) {
  const { line, me, notice, config, ringing, panel } = state;
  const view = viewOf(state);
  document.body.dataset.view = view;
  for (const name of Object.keys(VIEWS)) page[`${name}View`].hidden = name !== view;
  put(page.notice, notice?.key ?? null, notice?.values);
  page.secure.hidden = notice?.key !== 'sayInsecure' || config.tlsPort === null;
  page.secure.href = `https://${location.hostname}:${config.tlsPort}${location.pathname}${location.hash}`;
  page.who.hidden = me === null;
  page.who.dataset.line = line;
  put(page.who, line === 'online' ? 'online' : 'connecting', { name: me });
  renderInvitation(state, view);
  VIEWS[view](state, parts);
  renderBanner(ringing, view === 'call');
  moveFocus({ view, ringing, panel });
}

/** A link asks to call somebody, or to log in as another user. */
function renderInvitation({ invitation, loginLink, me, name }, view) {
  const views = loginLink ? ['login', 'home'] : ['home'];
  page.invitation.hidden = !(loginLink ?? invitation) || !views.includes(view);
  if (loginLink) {
    put(page.invitationWords, 'otherUser', { name: loginLink.user, me: me ?? name });
    put(page.followInvitation, 'goOnlineAs', { name: loginLink.user });
  } else if (invitation) {
    put(page.invitationWords, 'asksToCall', { name: invitation });
    put(page.followInvitation, 'callNow', { name: invitation });
  }
}

function renderLogin({ invitation: name, config }) {
  put(page.loginTitle, name ? 'asksToCall' : 'welcome', { name });
  put(page.loginHint, name ? 'asksToCallHint' : 'welcomeHint', { name });
  put(page.goOnline, name ? 'callNow' : 'goOnline', { name });
  page.access.hidden = !config.tokens;
}

function renderHome({ config, me, tokenFromLink, absent }, { ring }) {
  page.remember.hidden = !tokenFromLink;
  page.unlock.hidden = ring.mayRing;
  page.notify.hidden = !ring.canAskToNotify;
  renderLink(page.homeSharing, linkTo(me, config));
  const missed = missedCalls();
  const others = recentPeople().filter((name) => !missed.some((call) => call.name === name));
  page.people.hidden = missed.length + others.length === 0;
  renderPeople(page.peopleList, [...missed, ...others.map((name) => ({ name }))]);
  page.absent.hidden = absent === null;
  put(page.absentWords, absent?.isAwaited ? 'waiting' : 'sayAbsent', { name: absent?.name });
  put(page.await, absent?.isAwaited ? 'cancel' : 'callWhenBack', { name: absent?.name });
}

function renderLink(place, link) {
  move(page.sharing, place);
  page.shareLink.hidden = !navigator.share;
  if (page.link.value === link) return;
  page.link.value = link;
  page.qr.src = qrImage(link);
}

function renderPeople(place, people) {
  list(place, people, ({ name, times, at }) => {
    const call = node('span', { className: 'sr' }, `${text('call')} `);
    const button = actionButton('call', name, 'person', nameOf(name), call);
    if (times) {
      const time = at.toLocaleTimeString(navigator.language, { hour: '2-digit', minute: '2-digit' });
      const words = sentence(times > 1 ? 'missedOften' : 'missed', { times, time });
      button.append(node('span', { className: 'soft missed' }, ...words));
    }
    return node('li', {}, button);
  });
}

function renderAsking({ asking: { name, confirm, answering, opened } }, { media }) {
  const isCheck = name === null;
  const hint = isCheck ? 'checkHint' : 'readyHint';
  if (isCheck) put(page.askingTitle, 'checkTitle');
  else put(page.askingTitle, answering ? 'answeringTitle' : 'askingTitle', { name });
  put(page.askingHint, opened ? hint : 'askingHint', { name });
  renderDevices(page.askingDevices, media);
  page.askingDevices.hidden = !opened;
  page.audioOnly.checked = !media.wantsCamera;
  if (page.own.srcObject !== media.stream) page.own.srcObject = media.stream;
  page.own.hidden = media.video === null;
  page.own.classList.toggle('mirrored', media.isMirrored);
  put(page.previewEmpty, opened && !media.video ? 'cameraOff' : null);
  page.begin.hidden = !confirm || !opened;
  put(page.begin, isCheck ? 'back' : 'callNow', { name });
  page.cancel.hidden = isCheck && opened;
}

function renderCall({ call, group, panel, name: me, config }, { media, stage, chat }) {
  const { own, screen, video, isMirrored, stream } = media;
  const isShown = ({ connected, dialed }) => connected || (dialed && !dialed.mesh) || !group.stood;
  const peers = group.all.filter(isShown);
  const others = group.connected;
  const canBeRemoved = others.length > 1;
  const people = peers.map((peer) => ({ ...personOf(peer), canBeRemoved }));
  stage.draw([...people, { name: me, isOwn: true, stream, ...own, isMirrored }]);
  const title = { calling: 'calling', connecting: 'reaching', talking: 'inCallWith' }[call];
  const name = (others[0] ?? peers[0])?.name;
  put(page.callTitle, others.length > 1 ? 'inCallWithMany' : title, { count: others.length, name });
  page.mute.ariaPressed = own.muted;
  page.mute.disabled = media.audio === null;
  page.cameraOff.ariaPressed = !video;
  page.share.ariaPressed = screen !== null;
  page.share.hidden = !navigator.mediaDevices?.getDisplayMedia;
  page.add.disabled = group.isFull || !group.stood;
  if (panel === 'chat') chat.unread = 0;
  page.unread.hidden = chat.unread === 0;
  page.unread.textContent = chat.unread > 99 ? '99+' : chat.unread;
  page.unread.ariaLabel = text('unread', { count: chat.unread });
  page.panel.hidden = panel === null;
  for (const each of Object.keys(PANELS)) {
    page[`${each}Panel`].hidden = panel !== each;
    page[each].ariaExpanded = panel === each;
  }
  if (panel) put(page.panelTitle, PANELS[panel]);
  if (panel === 'more') renderDevices(page.moreDevices, media);
  if (panel === 'add') {
    renderLink(page.addSharing, linkTo(me, config));
    const absent = recentPeople().filter((person) => !group.peers.has(person));
    renderPeople(page.addList, absent.map((person) => ({ name: person })));
  }
  page.fullscreen.hidden = !document.fullscreenEnabled;
  page.fullscreen.ariaPressed = document.fullscreenElement !== null;
  page.pip.hidden = !document.pictureInPictureEnabled;
  page.flip.hidden = !media.facing;
}

function personOf({ name, remote, far, poor, connected, interrupted, met }) {
  let condition = null;
  if (interrupted) condition = 'interrupted';
  else if (!connected) condition = met ? 'reaching' : 'calling';
  const camera = far.camera && connected;
  return { name, stream: remote, ...far, camera, poor: poor && !interrupted, condition };
}

/** The pickers are there once: before a call, or in its panel. */
function renderDevices(place, media) {
  move(page.devices, place);
  page.devices.hidden = false;
  page.audioOnly.parentElement.hidden = place !== page.askingDevices;
}

/** Fills the pickers; labels are there only once the user has allowed a device. */
export async function fillPickers(media) {
  const { microphones, cameras, speakers } = await media.devices();
  const outputs = 'setSinkId' in HTMLMediaElement.prototype ? speakers : [];
  const pickers = { audio: page.microphone, video: page.camera, output: page.speaker };
  for (const [kind, all] of Object.entries({ audio: microphones, video: cameras, output: outputs })) {
    const select = pickers[kind];
    select.hidden = select.labels[0].hidden = all.length === 0;
    const devices = all.map(({ deviceId, label }) => ({ deviceId, label }));
    list(select, devices, ({ deviceId, label }) => {
      const words = label.slice(0, LONGEST_LABEL) || text('systemDefault');
      return new Option(words, deviceId);
    });
    select.value = media.chosen[kind] || media[kind]?.getSettings().deviceId || all[0]?.deviceId;
  }
}

function renderBanner(ringing, isJoining) {
  page.banner.hidden = ringing.length === 0;
  if (ringing.join('\n') === shown.ringing.join('\n') && isJoining === (shown.view === 'call')) return;
  const now = performance.now();
  // What appears must not be pressed by chance, nor what it uncovers when it goes.
  bannerSettled = now + SETTLE_MS;
  if (shown.ringing.some((name) => !ringing.includes(name))) settled = now + SETTLE_MS;
  put(page.bannerTitle, isJoining ? 'wantsToJoin' : 'isCalling', { name: ringing.at(-1) });
  const looks = { answer: 'primary', letIn: 'primary', notNow: 'danger', answerWithoutCamera: 'quiet' };
  const actions = isJoining ? ['letIn', 'notNow'] : ['answer', 'notNow', 'answerWithoutCamera'];
  page.callers.replaceChildren(...ringing.map((name) => {
    const buttons = actions.map((action) => {
      const button = actionButton(action, name, looks[action], text(action));
      button.setAttribute('aria-describedby', 'bannerTitle');
      return button;
    });
    return node('li', {}, ringing.length > 1 ? nameOf(name) : '', ...buttons);
  }));
}

/**
 * The focus moves only when the view changes, to a heading: never to a field, which would open a phone's
 * keyboard, nor to a button that acts. Somebody who types goes on typing while the banner is read out.
 */
function moveFocus(next) {
  const { view, ringing, panel } = next;
  if (view !== shown.view) {
    page.main.scrollTop = 0;
    if (shown.view !== '') { // not when the page appears
      settled = performance.now() + SETTLE_MS;
      page[`${view}Title`].focus({ preventScroll: true });
    }
  }
  if (panel !== null && panel !== shown.panel) page.panelTitle.focus();
  if (panel === null && shown.panel !== null && view === shown.view) {
    const button = page[shown.panel];
    (button.disabled ? page.callTitle : button).focus();
  }
  const isTyping = document.activeElement?.matches('input, select, textarea');
  const isNew = ringing.length > 0 && shown.ringing.length === 0;
  if (isNew && !isTyping) page.bannerTitle.focus({ preventScroll: true });
  shown = next;
}

function move(element, place) {
  if (element.parentElement !== place) place.append(element);
}

/** Children are made anew only when they are others, so that nobody loses the focus for nothing. */
function list(element, items, make) {
  const key = JSON.stringify(items);
  if (element.dataset.key === key) return;
  element.dataset.key = key;
  element.replaceChildren(...items.map(make));
}

function guard(event) {
  const { type, key, target, repeat } = event;
  const presses = key === 'Enter' || (key === ' ' && target.closest?.('button, label'));
  if (type === 'keydown' && !presses) return;
  const now = performance.now();
  const onBanner = page.banner.contains(target);
  if (!repeat && now >= settled && (!onBanner || now >= bannerSettled)) return;
  event.preventDefault();
  event.stopImmediatePropagation();
}

for (const type of ['click', 'submit', 'keydown']) addEventListener(type, guard, { capture: true });
