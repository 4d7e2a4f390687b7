/*
 * The wiring: what each button and each form does, and the beginning.
 */

import { answer, ask, begin, cancel, decline, dial, endCall, remove, sendText } from './call.js';
import { copyLink, dropInvitation, followInvitation, followLink, lookForAbsent } from './links.js';
import { goOffline, goOnline, rememberToken, submitLogin } from './online.js';
import * as people from './people.js';
import { callers, draw, media, ring, say, stage, state } from './state.js';
import { page } from './view.js';
import { text, translate } from './words.js';

const CONFIG_PAUSE_MS = 2_000;
const LEVEL_MS = 100;
const LOOK_MS = 2_000; // for somebody who is awaited

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
  share: async () => {
    if (media.screen) media.stopSharing();
    else if (!await media.share()) say('sayNoScreen');
  },
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
// Firefox closes the connection to the server before `pagehide`; Safari on iOS has no `beforeunload`.
for (const event of ['beforeunload', 'pagehide']) addEventListener(event, leavePage);
setInterval(lookForAbsent, LOOK_MS);
setInterval(() => { if (page.devices.offsetParent) page.level.value = media.level(); }, LEVEL_MS);

function leavePage() {
  if (state.group) endCall('sayYouHungUp');
  for (const name of callers.names) callers.refuse(name, 'hangup');
}

function togglePanel(name) {
  state.panel = name === state.panel ? null : name;
  draw();
}

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

translate(document);
page.name.value = state.name;
page.token.value = people.recall('token');
page.keepToken.checked = page.token.value !== '';
followLink();
loadConfig().then(start);

/** A page that was online when it was reloaded goes online again, if it still has the name and the token. */
function start() {
  if (state.line !== 'off' || state.loginLink || people.recall('online', true) === '') return;
  if (state.config.tokens && page.token.value === '') return say('sayTokenAgain');
  if (state.name) goOnline(state.name, page.token.value);
}
