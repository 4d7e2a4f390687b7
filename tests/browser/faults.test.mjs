/*
 * What went wrong with the page before it had these tests, one test for each.
 */

import assert from 'node:assert/strict';
import { bare, connect, devices, everybody, online, open, PHONE, serve, test, usersFile } from './harness.mjs';

const OFFER = { sdp: { type: 'offer', sdp: 'v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\n' } };
const ring = (who, callee, fields = {}) => who.eval(([to, more]) => say(to, 'offer', more), [callee, { ...OFFER, group: 'g', ...fields }]);

test('01 a space typed while a call comes in does not answer it', async () => {
  const server = await serve();
  const anna = await online(server, 'Anna');
  const bob = await bare(server, 'Bob');
  const field = anna.field('Call somebody by name');
  await field.pressSequentially('Grand');
  const place = await field.boundingBox();
  await ring(bob, 'Anna');
  await anna.banner('Bob is calling');
  await anna.page.keyboard.type(' mother');
  await anna.page.mouse.click(place.x + 5, place.y + 5); // and a tap where the field was hits the field
  assert.equal(await field.inputValue(), 'Grand mother');
  assert.deepEqual(await field.boundingBox(), place);
  // Without a field, the heading has the focus, and neither key answers.
  await anna.eval(() => document.activeElement.blur());
  await anna.page.keyboard.press('Space');
  await anna.page.keyboard.press('Enter');
  assert.equal(await anna.eval(() => connections.length), 0);
  await anna.banner('Bob is calling');
});

test('02 a double tap on "Not now" does not call the declined person back', async () => {
  const server = await serve();
  const [anna, bob] = await everybody(server, 'Anna', 'Bob');
  await anna.field('Call somebody by name').fill('Bob');
  await bob.call('Anna');
  await anna.button('Not now').waitFor();
  await anna.settled();
  await anna.button('Not now').dblclick();
  await bob.notice('Anna cannot talk right now');
  await anna.notice('You told Bob');
  assert.equal(await anna.eval(() => document.body.dataset.view), 'home');
  assert.equal(await anna.eval(() => sent.filter(({ signalType }) => signalType === 'offer').length), 0);
  // Nor does one tap at the moment in which the caller gives up.
  const carl = await bare(server, 'Carl');
  await ring(carl, 'Anna');
  await anna.banner('Carl is calling');
  const { x, y } = await anna.button('Answer').boundingBox();
  await carl.eval(() => say('Anna', 'leave', { reason: 'hangup', group: 'g' }));
  await anna.notice('You missed a call from Carl');
  await anna.page.mouse.click(x + 5, y + 5);
  assert.equal(await anna.eval(() => document.body.dataset.view), 'home');
});

test('03 holding Enter dials once and does not hang up', async () => {
  const server = await serve();
  const [anna, bob] = await everybody(server, 'Anna', 'Bob');
  await anna.field('Call somebody by name').fill('Bob');
  await anna.settled();
  for (let i = 0; i < 12; i += 1) await anna.page.keyboard.down('Enter'); // all but the first are repeats
  await bob.banner('Anna is calling');
  for (let i = 0; i < 12; i += 1) await anna.page.keyboard.down('Enter');
  await anna.page.keyboard.up('Enter');
  assert.equal(await anna.eval(() => document.activeElement.tagName), 'H2');
  await bob.answers();
  await anna.sees_pictures_of('Bob');
});

test('04 a microphone or camera that ends is noticed and replaced', async () => {
  const server = await serve();
  const [anna, bob] = await everybody(server, 'Anna', 'Bob');
  await connect(anna, bob);
  const end = (kind, gone) => anna.eval(([wanted, missing]) => {
    if (missing) navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotFoundError'));
    const track = connections[0].getSenders().map((sender) => sender.track).find((one) => one?.kind === wanted);
    track.stop();
    track.dispatchEvent(new Event('ended'));
  }, [kind, gone]);
  await end('audio', false);
  await anna.notice('Another one is in use now');
  await anna.until(() => connections[0].getSenders().every(({ track }) => track?.readyState === 'live'));
  await end('audio', true);
  await anna.notice('Your microphone was disconnected. The others cannot hear you.');
  await bob.page.locator('.tile', { hasText: 'Anna' }).getByText('Muted').waitFor({ state: 'attached' });
  await end('video', true);
  await anna.notice('Your camera was disconnected. The others cannot see you.');
  await bob.page.locator('.tile.unseen', { hasText: 'Anna' }).waitFor();
});

test('05 a user who is removed keeps the call that stands', async () => {
  const users = await usersFile('Anna', 'Bob');
  const server = await serve('--users', users.file);
  const [anna, bob] = await Promise.all(['Anna', 'Bob'].map((name) => open(`${server.url}#user=${name}&token=${users.tokens[name]}`, name)));
  await Promise.all([anna, bob].map((person) => person.notice('You are online')));
  await connect(anna, bob);
  await users.remove('Anna');
  await anna.eval(() => sockets.at(-1).close());
  await anna.notice('This call goes on');
  await bob.sees_pictures_of('Anna');
  await anna.until(() => connections[0].connectionState === 'connected');
  await anna.press('Hang up');
  await anna.notice('name and this token do not belong together');
  await bob.notice('Anna hung up');
});

test('05 a name that somebody else took does not end the call that stands', async () => {
  const server = await serve();
  const [anna, bob] = await everybody(server, 'Anna', 'Bob');
  await connect(anna, bob);
  const thief = await open(`${server.url}healthz`);
  await anna.eval(() => { // and the way back is closed until the name is taken
    globalThis.Real = WebSocket;
    globalThis.WebSocket = class extends EventTarget { readyState = 0; close() {} send() {} };
    sockets.at(-1).close();
  });
  await anna.notice('The call goes on');
  await thief.until(() => new Promise((resolve) => {
    const socket = globalThis.taken = new WebSocket(location.origin.replace('http', 'ws'));
    socket.onopen = () => socket.send(JSON.stringify({ signalType: 'login', fromUser: 'Anna', toUser: '' }));
    socket.onmessage = ({ data }) => resolve(JSON.parse(data).success === '1');
  }));
  await anna.eval(() => { globalThis.WebSocket = Real; dispatchEvent(new Event('online')); });
  await anna.notice('This call goes on');
  await bob.sees_pictures_of('Anna');
});

test('06 an online event while calling does not disturb the call', async () => {
  const server = await serve();
  const [anna, bob] = await everybody(server, 'Anna', 'Bob');
  await anna.call('Bob');
  await bob.banner('Anna is calling');
  for (const person of [anna, bob]) {
    await person.eval(() => { heard.length = 0; dispatchEvent(new Event('online')); });
    await person.until(() => heard.some(({ signalType }) => signalType === 'login')); // the line is alive
    assert.equal(await person.eval(() => sockets.length), 1);
  }
  await bob.answers();
  await anna.sees_pictures_of('Bob');
});

test('06 a line that is lost while ringing comes back, and the call can be answered', async () => {
  const server = await serve();
  const [anna, bob] = await everybody(server, 'Anna', 'Bob');
  await anna.call('Bob');
  for (const person of [anna, bob]) {
    await bob.banner('Anna is calling');
    await person.eval(() => sockets.at(-1).close());
    await person.until(() => sockets.length >= 2 && document.querySelector('#who').dataset.line === 'online');
  }
  await bob.answers();
  await Promise.all([anna.sees_pictures_of('Bob'), bob.sees_pictures_of('Anna')]);
  assert.equal(await bob.eval(() => document.querySelector('#banner').hidden), true);
});

test('07 a refused camera makes a call without a picture', async () => {
  const server = await serve();
  const anna = await online(server, 'Anna');
  const bob = await online(server, 'Bob', { init: devices.failing(['video'], 'NotAllowedError') });
  await anna.call('Bob');
  await bob.answers();
  await bob.sees_pictures_of('Anna');
  await bob.notice('Your camera is missing or blocked');
  await anna.page.locator('.tile.unseen', { hasText: 'Bob' }).waitFor();
  await anna.until(() => connections[0].getReceivers().some(({ track }) => track.kind === 'audio' && !track.muted));
});

test('07 when all is refused, both sides are told', async () => {
  const server = await serve();
  const anna = await online(server, 'Anna');
  const bob = await online(server, 'Bob', { init: devices.failing(['audio', 'video'], 'NotAllowedError') });
  await anna.call('Bob');
  await bob.answers();
  await bob.notice('Camera and microphone are blocked');
  await anna.notice('Bob could not open a camera or microphone');
});

test('08 while the own permission is asked for, the page says so and rings nobody', async () => {
  const server = await serve();
  const anna = await online(server, 'Anna', { init: devices.prompting });
  const bob = await online(server, 'Bob');
  await anna.call('Bob');
  await anna.sees('Your browser asks for your camera and microphone');
  assert.equal(await anna.page.getByText('Calling Bob…').isVisible(), false);
  await anna.eval(() => allow());
  await bob.banner('Anna is calling');
  await anna.sees('Calling Bob…');
});

test('08 a permission that is never given ends the attempt', async () => {
  const server = await serve();
  const anna = await online(server, 'Anna', { init: devices.prompting, clock: true });
  await anna.call('Bob');
  await anna.sees('Your browser asks for your camera and microphone');
  await anna.page.clock.fastForward(61_000);
  await anna.notice('still waiting for a permission');
});

test('09 a second tab of a browser takes over', async () => {
  const server = await serve();
  const [first, bob] = await everybody(server, 'Anna', 'Bob');
  const page = await first.context.newPage();
  await page.goto(server.url);
  const second = Object.assign(Object.create(Object.getPrototypeOf(first)), { page, context: first.context, name: 'Anna' });
  await second.press('Go online');
  await second.notice('You are online as');
  await first.notice('You are online in another tab');
  await connect(second, bob);
  await first.press('Go online'); // but not from a tab that is in a call
  await first.notice('You are in a call in another tab');
  await second.sees_pictures_of('Bob');
});

test('10 after a login link the page offers to remember the token, and says what happens', async () => {
  const users = await usersFile('Anna');
  const server = await serve('--users', users.file);
  const anna = await open(`${server.url}#user=Anna&token=${users.tokens.Anna}`);
  await anna.sees('After closing or reloading this page you need that link again');
  await anna.page.reload();
  await anna.notice('This device does not remember your token');
  await anna.page.goto(`${server.url}?again#user=Anna&token=${users.tokens.Anna}`);
  await anna.press('Remember on this device');
  await anna.page.reload();
  await anna.notice('You are online as');
});

test('11 a link made on localhost names an address of the network', async () => {
  const server = await serve();
  const config = { iceServers: [], tlsPort: 8443, tokens: false, addresses: ['192.168.1.5', '10.0.0.9'] };
  const real = await (await fetch(`${server.url}config.json`)).json();
  assert.deepEqual(Object.keys(real).sort(), Object.keys(config).sort());
  const anna = await open('about:blank', 'Anna');
  await anna.context.route('**/config.json', (route) => route.fulfill({ json: config }));
  await anna.page.goto(server.url);
  await anna.goOnline();
  await anna.until(() => document.getElementById('link').value === 'https://192.168.1.5:8443/#call=Anna');
  await anna.until(() => document.getElementById('qr').naturalWidth > 0);
});

test('12 a link to somebody who is away leads to a call when they are back', async () => {
  const server = await serve();
  const bob = await open(`${server.url}#call=Anna`, 'Bob');
  await bob.sees('Anna asks you to call');
  await bob.field('Your name').fill('Bob');
  await bob.press('Call Anna');
  await bob.sees('Anna is not online.');
  await bob.press('Call when Anna is back');
  await bob.sees('You will be connected as soon as Anna is online');
  const anna = await online(server, 'Anna');
  await anna.answers();
  await bob.sees_pictures_of('Anna');
});

test('12 a link that is opened while online does not overwrite what was typed', async () => {
  const server = await serve();
  const bob = await online(server, 'Bob');
  await bob.field('Call somebody by name').fill('Grandmother');
  await bob.eval(() => { location.hash = '#call=Anna'; });
  await bob.sees('Anna asks you to call');
  assert.equal(await bob.field('Call somebody by name').inputValue(), 'Grandmother');
  await bob.button('Call Anna').waitFor();
});

test('13 missed calls are listed, and so is who tried while one was busy', async () => {
  const server = await serve();
  const [anna, bob] = await everybody(server, 'Anna', 'Bob');
  const carl = await bare(server, 'Carl');
  await ring(carl, 'Anna');
  await anna.banner('Carl is calling');
  await carl.eval(() => say('Anna', 'leave', { reason: 'hangup', group: 'g' }));
  await anna.sees('Missed call');
  await connect(anna, bob);
  await ring(carl, 'Anna', { size: 2 }); // somebody in another call
  await carl.until(() => heard.some(({ reason }) => reason === 'busy'));
  await anna.press('Hang up');
  await anna.sees('2 missed calls');
});

test('14 names cannot turn, cover or empty the page', async () => {
  const server = await serve();
  const anna = await online(server, 'Anna');
  await anna.field('Call somebody by name').fill('   ');
  await anna.press('Call');
  await anna.notice('Type a name first');
  assert.equal(await anna.eval(() => sent.filter(({ signalType }) => signalType === 'offer').length), 0);
  const name = 'long name '.repeat(12).trim();
  const bob = await online(server, name);
  await connect(bob, anna);
  const plate = await anna.page.locator('.tile:not(.own) .plate').boundingBox();
  assert.ok(plate.height < 40, `${plate.height}`);
  const style = await anna.eval(() => getComputedStyle(document.querySelector('.plate bdi')).unicodeBidi);
  assert.equal(style, 'isolate');
});

test('15 a config.json that fails once is asked for again', async () => {
  const users = await usersFile('Anna');
  const server = await serve('--users', users.file);
  const anna = await open('about:blank', 'Anna');
  let asked = 0;
  await anna.context.route('**/config.json', (route) => (++asked === 1 ? route.abort() : route.continue()));
  await anna.page.goto(server.url);
  await anna.page.getByLabel('Your token').waitFor();
});

test('16 whoever was told "not now" cannot ring again for a minute', async () => {
  const server = await serve();
  const anna = await online(server, 'Anna', { clock: true });
  const bob = await online(server, 'Bob');
  await bob.call('Anna');
  await anna.press('Not now');
  for (let i = 1; i < 3; i += 1) {
    await bob.notice('Anna cannot talk right now');
    await bob.call('Anna');
    await bob.until((n) => heard.filter(({ reason }) => reason === 'declined').length === n, i + 1);
  }
  assert.equal(await anna.page.locator('#banner').isVisible(), false);
  await anna.page.clock.fastForward(61_000);
  await bob.call('Anna');
  await anna.banner('Bob is calling');
});

test('17 a late answer of a former call is not taken for the new one', async () => {
  const server = await serve();
  const anna = await online(server, 'Anna');
  const bob = await bare(server, 'Bob');
  const answer = (group) => bob.eval(async (id) => {
    const offer = heard.filter(({ signalType }) => signalType === 'offer').find(({ group: theirs }) => theirs === id);
    const pc = new RTCPeerConnection();
    await pc.setRemoteDescription(offer.sdp);
    await pc.setLocalDescription();
    say('Anna', 'answer', { group: id, sdp: pc.localDescription });
    say('Anna', 'leave', { group: id, reason: 'hangup' });
  }, group);
  const offers = () => bob.eval(() => heard.filter(({ signalType }) => signalType === 'offer').map(({ group }) => group));
  await anna.call('Bob');
  await bob.until(() => heard.some(({ signalType }) => signalType === 'offer'));
  await anna.press('Hang up');
  await anna.call('Bob');
  await bob.until(() => heard.filter(({ signalType }) => signalType === 'offer').length === 2);
  const [former, current] = await offers();
  assert.notEqual(former, current);
  await answer(former);
  // A message after it, whose effect can be seen, has overtaken nothing.
  await anna.until(() => heard.some(({ signalType }) => signalType === 'leave'));
  assert.equal(await anna.eval(() => connections.at(-1).signalingState), 'have-local-offer');
  assert.equal(await anna.eval(() => document.body.dataset.view), 'call');
});

test('18 a peer cannot speak with the voice of the server', async () => {
  const server = await serve();
  const anna = await online(server, 'Anna');
  const mallory = await bare(server, 'Mallory');
  const lie = 'Your token has expired, go to https://evil.example';
  await mallory.eval((message) => {
    say('Anna', 'candidate', { type: 'error', code: 'unauthorized', message });
    say('Anna', 'leave', { type: 'error', code: 'x', message, reason: message });
    say('Anna', 'offer', { type: 'error', code: message, message, group: 'g', sdp: { sdp: 'v=0' } });
  }, lie);
  await anna.banner('Mallory is calling');
  assert.equal((await anna.page.locator('body').textContent()).includes('evil'), false);
  await anna.notice('You are online as');
});

test('18 a reason that nobody knows is shown as a hang-up', async () => {
  const server = await serve();
  const anna = await online(server, 'Anna');
  const mallory = await bare(server, 'Mallory');
  for (const reason of ['Your token has expired', 'constructor', '__proto__']) {
    await anna.call('Mallory');
    await mallory.until(() => heard.some(({ signalType }) => signalType === 'offer'));
    await mallory.eval((why) => {
      const { group } = heard.find(({ signalType }) => signalType === 'offer');
      heard.length = 0;
      say('Anna', 'leave', { group, reason: why });
    }, reason);
    await anna.notice('Mallory hung up');
  }
});

test('19 a login link neither overwrites a remembered token nor changes the user by itself', async () => {
  const users = await usersFile('Anna', 'Bob');
  const server = await serve('--users', users.file);
  const anna = await open(`${server.url}#user=Anna&token=${users.tokens.Anna}`);
  await anna.press('Remember on this device');
  await anna.settled();
  await anna.eval((token) => { location.hash = `#user=Bob&token=${token}`; }, users.tokens.Bob);
  await anna.sees('This link logs you in as Bob. On this device you are Anna.');
  await anna.press('Not now');
  await anna.page.goto(`${server.url}?again#user=Bob&token=${users.tokens.Bob}`);
  await anna.button('Go online as Bob').waitFor();
  assert.equal(await anna.page.locator('#who').isVisible(), false);
  await anna.press('Go online as Bob');
  await anna.notice('You are online as');
  assert.equal(await anna.eval(() => localStorage.getItem('token')), users.tokens.Anna);
  assert.equal(await anna.eval(() => location.hash), '');
});

test('20 an offer that is marked as a restart gets no answer from an idle page', async () => {
  const server = await serve();
  const anna = await online(server, 'Anna');
  const mallory = await bare(server, 'Mallory');
  await ring(mallory, 'Anna', { restart: true });
  await ring(mallory, 'Anna', { group: 'h' });
  await anna.banner('Mallory is calling');
  assert.deepEqual(await anna.eval(() => sent.map(({ signalType }) => signalType)), ['login']);
});

test('21 a page that is loaded again does not call its own name taken', async () => {
  const server = await serve();
  const anna = await online(server, 'Anna', { viewport: PHONE });
  const holder = await open(`${server.url}healthz`);
  await anna.page.goto('about:blank');
  // Another connection holds the name for a moment, as an old one of this page would.
  await holder.until(() => new Promise((resolve) => {
    const socket = globalThis.holding = new WebSocket(location.origin.replace('http', 'ws'));
    socket.onopen = () => socket.send(JSON.stringify({ signalType: 'login', fromUser: 'Anna', toUser: '' }));
    socket.onmessage = ({ data }) => resolve(JSON.parse(data).success === '1');
  }));
  await anna.page.goto(server.url);
  await anna.until(() => document.body.dataset.view === 'login' ? (document.getElementById('goOnline').click(), true) : sent.length > 0);
  await anna.until(() => heard.some(({ reason }) => reason === 'name-taken'));
  assert.equal((await anna.says()).includes('taken'), false);
  await holder.eval(() => holding.close());
  await anna.notice('You are online as');
});
