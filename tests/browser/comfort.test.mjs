/* What makes the page pleasant, one test for each row of its list of features. */

import assert from 'node:assert/strict';
import { connect, devices, everybody, online, open, PHONE, serve, test } from './harness.mjs';

const own = (person) => person.page.locator('.tile.own');
const tile = (person, name) => person.page.locator('.tile:not(.own)', { hasText: name });
const sends = (person, kind) => person.eval((wanted) => connections.at(-1).getTransceivers()
  .find(({ receiver }) => receiver.track.kind === wanted).sender.track?.readyState ?? null, kind);

test('a call rings: a tone, vibration, the title, and a notification when the page is hidden', async () => {
  const server = await serve();
  const anna = await online(server, 'Anna', {
    permissions: ['notifications'],
    init: `
      globalThis.felt = [];
      navigator.vibrate = (pattern) => felt.push(JSON.stringify(pattern));
      OscillatorNode.prototype.start = new Proxy(OscillatorNode.prototype.start, { apply(...all) { felt.push('tone'); return Reflect.apply(...all); } });
      globalThis.Notification = class { static permission = 'granted'; constructor(words) { felt.push(words); } close() { felt.push('closed'); } };
      Object.defineProperty(document, 'hidden', { get: () => globalThis.isHidden ?? false });`,
  });
  const bob = await online(server, 'Bob');
  await anna.eval(() => { globalThis.isHidden = true; });
  await bob.call('Anna');
  await anna.banner('Bob is calling');
  assert.match(await anna.page.title(), /Bob.* is calling/);
  await anna.until(() => felt.includes('tone') && felt.includes('[400,200,400]') && felt.some((one) => one.endsWith('is calling')));
  await bob.press('Hang up');
  await anna.notice('You missed a call from Bob');
  await anna.until(() => felt.at(-1) === 'closed');
  assert.equal(await anna.page.title(), 'Video call');
});

test('where the browser wants a press before it lets a page ring, the page asks for one', async () => {
  const server = await serve();
  // As browsers do it: a context that was made without a press does not run.
  const init = 'AudioContext = class extends EventTarget { state = globalThis.pressed ? "running" : "suspended"; async resume() { if (globalThis.pressed) this.state = "running"; } };';
  const anna = await open(server.url, 'Anna', { init });
  await anna.goOnline();
  await anna.eval(() => { globalThis.pressed = true; });
  await anna.press('Tap here so that calls can ring');
  await anna.button('Tap here so that calls can ring').waitFor({ state: 'hidden' });
});

test('the screen stays on during a call, and only then', async () => {
  const server = await serve();
  const init = `globalThis.locks = [];
    const real = navigator.wakeLock.request.bind(navigator.wakeLock);
    navigator.wakeLock.request = async (kind) => { locks.push(await real(kind)); return locks.at(-1); };`;
  const anna = await online(server, 'Anna', { init });
  const bob = await online(server, 'Bob');
  await connect(anna, bob);
  await anna.until(() => locks.length === 1 && !locks[0].released);
  await anna.press('Hang up');
  await anna.until(() => locks.length === 1 && locks[0].released);
});

test('before the first call the page shows how one looks and sounds, with devices to choose', async () => {
  const server = await serve();
  const anna = await online(server, 'Anna', { init: devices.firstVisit, viewport: PHONE });
  const bob = await online(server, 'Bob');
  await anna.call('Bob');
  await anna.sees('This is what Bob will see');
  await anna.until(() => document.getElementById('own').videoWidth > 0 && document.getElementById('level').value > 0);
  for (const label of ['Microphone', 'Camera', 'Speaker']) {
    assert.ok(await anna.page.getByLabel(label, { exact: true }).locator('option').count() > 0, label);
  }
  assert.equal(await bob.page.locator('#banner').isVisible(), false);
  await anna.shot('preview-phone');
  const camera = anna.page.getByLabel('Camera', { exact: true });
  const [, second] = await camera.locator('option').evaluateAll((all) => all.map(({ value }) => value));
  await camera.selectOption(second);
  await anna.until((id) => document.getElementById('own').srcObject.getVideoTracks()[0]?.getSettings().deviceId === id, second);
  await anna.page.getByLabel('Call without camera').check();
  await anna.sees('Camera off');
  await anna.press('Call Bob');
  await bob.answers();
  await anna.sees_pictures_of('Bob');
  await bob.page.locator('.tile.unseen', { hasText: 'Anna' }).waitFor();
  await anna.press('Hang up');
  await anna.call('Bob'); // the second time nothing is asked
  await bob.banner('Anna is calling');
});

test('the devices can be looked at without a call', async () => {
  const server = await serve();
  const anna = await online(server, 'Anna');
  await anna.press('Check camera and sound');
  await anna.sees('Nobody sees or hears you yet');
  await anna.press('Done');
  await anna.until(() => document.body.dataset.view === 'home' && document.getElementById('own').srcObject.getTracks().length === 0);
});

test('a call can be answered without a camera, which can be switched on later', async () => {
  const server = await serve();
  const [anna, bob] = await everybody(server, 'Anna', 'Bob');
  await anna.call('Bob');
  await bob.answers('Answer without camera');
  await tile(anna, 'Bob').locator('.badge').filter({ hasText: 'Camera off' }).waitFor();
  assert.equal(await sends(bob, 'video'), null);
  await bob.press('Camera off');
  await anna.sees_pictures_of('Bob');
});

test('without any device one can watch and listen', async () => {
  const server = await serve();
  const anna = await online(server, 'Anna');
  const bob = await online(server, 'Bob', { init: devices.failing(['audio', 'video'], 'NotFoundError') });
  await bob.call('Anna');
  await anna.answers();
  await bob.sees_pictures_of('Anna');
  await bob.notice('you can watch, listen and write');
});

test('mute and camera off are seen by the other, and the camera’s light goes off', async () => {
  const server = await serve();
  const [anna, bob] = await everybody(server, 'Anna', 'Bob');
  await connect(anna, bob);
  const camera = await anna.page.evaluateHandle(() => connections[0].getSenders().find(({ track }) => track.kind === 'video').track);
  await anna.press('Mute');
  await tile(bob, 'Anna').locator('.badge', { hasText: 'Muted' }).waitFor();
  await anna.press('Camera off');
  await tile(bob, 'Anna').locator('.badge', { hasText: 'Camera off' }).waitFor();
  assert.equal(await camera.evaluate((track) => track.readyState), 'ended');
  assert.equal(await anna.eval(() => document.getElementById('mute').getAttribute('aria-pressed')), 'true');
  await bob.shot('call-badges');
  await anna.press('Mute');
  await anna.press('Camera off');
  await bob.sees_pictures_of('Anna');
  await tile(bob, 'Anna').locator('.badge:not([hidden])').first().waitFor({ state: 'hidden' });
});

test('the camera is switched in a call, without a new negotiation', async () => {
  const server = await serve();
  // As a phone's cameras say where they look.
  const anna = await online(server, 'Anna', { init: `{
    const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (wish) => {
      const stream = await real(wish);
      const [track] = stream.getVideoTracks();
      if (!track) return stream;
      const settings = track.getSettings();
      track.getSettings = () => ({ ...settings, facingMode: wish.video.facingMode?.ideal ?? 'user' });
      return stream;
    };
  }` });
  const bob = await online(server, 'Bob');
  await connect(anna, bob);
  const sent = (key) => anna.eval((name) => connections[0].getSenders().find(({ track }) => track?.kind === 'video')?.track.getSettings()[name], key);
  await anna.press('More');
  await anna.press('Switch camera');
  await anna.until(() => connections[0].getSenders().find(({ track }) => track?.kind === 'video')?.track.getSettings().facingMode === 'environment');
  await own(anna).locator('video:not(.mirrored)').waitFor();
  const camera = anna.page.getByLabel('Camera', { exact: true }).and(anna.page.locator('select'));
  const other = await camera.locator('option').last().getAttribute('value');
  assert.notEqual(other, await sent('deviceId'));
  await camera.selectOption(other);
  await anna.until((id) => connections[0].getSenders().find(({ track }) => track?.kind === 'video')?.track.getSettings().deviceId === id, other);
  await bob.sees_pictures_of('Anna');
  assert.equal(await anna.eval(() => sent.filter(({ signalType }) => signalType === 'offer').length), 1);
});

test('the call fills the screen, and goes on in a small window', async () => {
  const server = await serve();
  const [anna, bob] = await everybody(server, 'Anna', 'Bob');
  await connect(anna, bob);
  await anna.press('More');
  await anna.press('Full screen');
  await anna.until(() => document.fullscreenElement === document.documentElement);
  await anna.press('Full screen');
  await anna.until(() => document.fullscreenElement === null);
  await anna.press('Picture in picture');
  await anna.until(() => document.pictureInPictureElement?.matches('.tile:not(.own) video'));
  await anna.press('Picture in picture');
  await anna.until(() => document.pictureInPictureElement === null);
  await anna.press('Picture in picture');
  await anna.until(() => document.pictureInPictureElement !== null);
  await anna.press('Hang up');
  await anna.until(() => document.pictureInPictureElement === null);
});

test('a shared screen is seen by all, and ends on both sides', async () => {
  const server = await serve();
  const [anna, bob, cleo] = await everybody(server, 'Anna', 'Bob', 'Cleo');
  await connect(anna, bob);
  await cleo.call('Anna');
  await anna.press('Let in');
  await cleo.sees_pictures_of('Anna', 'Bob');
  await anna.press('Share screen');
  for (const one of [bob, cleo]) {
    await one.page.locator('.tile[data-screen]', { hasText: 'Anna' }).waitFor();
    await one.until(() => document.querySelector('.tile[data-screen] video').videoWidth === 1280);
  }
  const told = anna.notice('You no longer share your screen');
  // Chromium's own button ends a share; a page's `stop` alone says nothing to the page.
  await anna.eval(() => {
    const [track] = document.querySelector('.tile.own video').srcObject.getVideoTracks();
    track.stop();
    track.dispatchEvent(new Event('ended'));
  });
  await told;
  await bob.page.locator('.tile[data-screen]').waitFor({ state: 'detached' });
  await bob.sees_pictures_of('Anna');
  await anna.eval(() => {
    navigator.mediaDevices.getDisplayMedia = () => Promise.reject(new DOMException('', 'NotFoundError'));
  });
  await anna.press('Share screen');
  await anna.notice('This browser has no screen to share');
});

test('lines of text reach all, are counted until read, and open nothing by themselves', async () => {
  const server = await serve();
  const [anna, bob, cleo] = await everybody(server, 'Anna', 'Bob', 'Cleo');
  await connect(anna, bob);
  await cleo.call('Anna');
  await anna.press('Let in');
  await cleo.sees_pictures_of('Anna', 'Bob');
  await anna.press('Chat');
  const write = async (words) => {
    await anna.field('Write a message').fill(words);
    await anna.page.keyboard.press('Enter');
  };
  await write('Hello <b>all</b>');
  await write('see https://example.com/a?b=1 please');
  for (const one of [bob, cleo]) {
    await one.until(() => document.getElementById('unread').textContent === '2');
    await one.page.getByRole('button', { name: /^Chat/ }).click();
    await one.sees('Hello <b>all</b>');
  }
  assert.equal(await bob.page.locator('#unread').isVisible(), false);
  const link = bob.page.getByRole('link', { name: 'https://example.com/a?b=1' });
  assert.equal(await link.getAttribute('rel'), 'noopener noreferrer');
  assert.equal(await link.getAttribute('href'), 'https://example.com/a?b=1');
  const asked = new Promise((resolve) => { bob.page.once('dialog', (dialog) => dialog.dismiss().then(() => resolve(dialog.message()))); });
  await link.click();
  assert.match(await asked, /^Open example\.com\? .*Anna.* sent this address\.$/);
  assert.equal(bob.context.pages().length, 1);
  await bob.shot('chat-desktop');
  await bob.page.setViewportSize(PHONE);
  await bob.shot('chat-phone');
  // A flood is dropped, and the page stays as it is.
  await anna.eval(() => {
    for (let i = 0; i < 30; i += 1) {
      document.getElementById('chatText').value = i ? `flood ${i}` : 'x'.repeat(5_000);
      document.getElementById('chatForm').requestSubmit();
    }
  });
  await anna.press('Mute'); // which is said on the same channel, after all that
  await tile(bob, 'Anna').locator('.badge:not([hidden])', { hasText: 'Muted' }).waitFor({ state: 'attached' });
  assert.ok(await bob.page.locator('#chatList > div').count() <= 10); // two from before, and eight in 10 s
  await bob.press('Hang up');
  await connect(bob, await online(server, 'Dan'));
  assert.equal(await bob.page.locator('#chatList > div').count(), 0, 'nothing of a call stays');
});

test('a line of text in the last message of a call is not kept for the next one', async () => {
  const server = await serve();
  const [anna, bob] = await everybody(server, 'Anna', 'Bob');
  await connect(anna, bob);
  await bob.eval(() => {
    sockets.at(-1).send = () => {}; // so that the data channel brings the end of the call
    const { send } = RTCDataChannel.prototype;
    RTCDataChannel.prototype.send = function (data) { send.call(this, JSON.stringify({ ...JSON.parse(data), text: 'a line' })); };
  });
  await bob.press('Hang up');
  await anna.notice('Bob hung up');
  assert.equal(await anna.page.locator('#chatList > div').count(), 0);
});

test('the link is copied, shared, and shown as a QR code', async () => {
  const server = await serve();
  const anna = await online(server, 'Änna & co', {
    permissions: ['clipboard-read', 'clipboard-write'],
    init: 'navigator.share = async (what) => { globalThis.shared = what; };',
  });
  const link = `${server.url}#call=%C3%84nna%20%26%20co`;
  await anna.press('Copy link');
  await anna.notice('Link copied');
  assert.equal(await anna.eval(() => navigator.clipboard.readText()), link);
  await anna.press('Share…');
  assert.equal(await anna.eval(() => shared.url), link);
  await anna.until(() => document.getElementById('qr').naturalWidth > 0);
  const bob = await open(link, 'Bob');
  await bob.field('Your name').fill('Bob');
  await bob.press('Call Änna & co');
  await anna.banner('Bob is calling');
});

test('people called before are one press away, and can be forgotten', async () => {
  const server = await serve();
  const [anna, bob] = await everybody(server, 'Anna', 'Bob');
  await connect(anna, bob);
  await anna.press('Hang up');
  await anna.page.reload();
  await anna.page.getByRole('button', { name: 'Call' }).and(anna.page.locator('[data-name="Bob"]')).waitFor();
  await anna.settled();
  await anna.page.locator('[data-name="Bob"]').click();
  await bob.banner('Anna is calling');
  await anna.press('Hang up');
  const stored = await anna.eval(() => Object.entries(localStorage).map(String).sort());
  assert.deepEqual(stored, ['checked,1', 'name,Anna', 'people,Bob']);
  await anna.press('Clear list');
  await anna.page.locator('#people').waitFor({ state: 'hidden' });
  assert.equal(await anna.eval(() => localStorage.getItem('people')), null);
});

test('a poor connection is said in plain words, with what to try', async () => {
  const server = await serve();
  const [anna, bob] = await everybody(server, 'Anna', 'Bob');
  await connect(anna, bob);
  await anna.eval(() => {
    let ticks = 0;
    connections[0].getStats = async () => { ticks += 1; return new Map([['a', { type: 'inbound-rtp', packetsReceived: 100 * ticks, packetsLost: 40 * ticks, bytesReceived: ticks }]]); };
  });
  await anna.notice('The connection to Bob is poor. Try moving closer');
  await tile(anna, 'Bob').locator('.badge', { hasText: 'Poor connection' }).waitFor();
});

test('plain http says that https is needed, and where', async () => {
  const server = await serve();
  const anna = await open('about:blank', 'Anna', { init: 'Object.defineProperty(navigator, "mediaDevices", { value: undefined });' });
  const config = { iceServers: [], tlsPort: 8443, tokens: false, addresses: [] };
  await anna.context.route('**/config.json', (route) => route.fulfill({ json: config }));
  await anna.page.goto(server.url);
  await anna.notice('only to pages from https://');
  assert.equal(await anna.page.locator('#secure').getAttribute('href'), 'https://localhost:8443/');
});

for (const [locale, words] of [['de-AT', 'Online gehen'], ['fr-CA', 'Se connecter'], ['es-MX', 'Conectarse'], ['ja-JP', 'Go online']]) {
  test(`a browser in ${locale} gets “${words}”`, async () => {
    const server = await serve();
    const anna = await open(server.url, 'Anna', { locale, viewport: PHONE });
    await anna.button(words).waitFor();
    assert.equal(await anna.eval(() => document.documentElement.lang), locale.startsWith('ja') ? 'en' : locale.slice(0, 2));
    await anna.shot(`login-${locale}`);
  });
}

test('of a stored list of people that somebody has changed, only names are shown', async () => {
  const server = await serve();
  const anna = await online(server, 'Anna', { init: "localStorage.setItem('people', `${'x'.repeat(129)}\\n\\nBob`);" });
  await anna.sees('Who would you like to talk to?');
  assert.deepEqual(await anna.page.locator('#peopleList .name').allTextContents(), ['Bob']);
});
