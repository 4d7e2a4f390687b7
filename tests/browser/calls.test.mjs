/* Calls of two to six people, and everything that can cross on the way. */

import assert from 'node:assert/strict';
import { connect, DESKTOP, devices, everybody, launch, online, open, PHONE, serve, test } from './harness.mjs';

/** A client as the original server's users wrote it: no group id, no data channel, no reasons. */
function originalClient([me, isBare]) {
  const socket = new WebSocket(location.origin.replace('http', 'ws'));
  const send = (signalType, toUser, fields = {}) => socket.send(JSON.stringify({ msgType: 'other', signalType, fromUser: me, toUser, ...fields }));
  const wrap = (description) => (isBare ? description.sdp : description);
  globalThis.open = async (peer) => {
    const pc = globalThis.pc = new RTCPeerConnection();
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: { width: 320 } });
    for (const track of stream.getTracks()) pc.addTrack(track, stream);
    globalThis.received = new Set();
    pc.ontrack = ({ track }) => { track.onunmute = () => received.add(track.kind); };
    pc.onicecandidate = ({ candidate }) => candidate && send('candidate', peer, { candidate });
    return pc;
  };
  globalThis.dial = async (peer) => {
    const pc = await open(peer);
    await pc.setLocalDescription();
    send('offer', peer, { sdp: wrap(pc.localDescription) });
  };
  globalThis.leave = (peer) => { send('leave', peer); pc.close(); };
  let early = [];
  socket.onopen = () => send('login', '');
  socket.onmessage = async ({ data }) => {
    const message = JSON.parse(data);
    const sdp = { type: message.signalType, sdp: message.sdp?.sdp ?? message.sdp };
    if (message.signalType === 'login') globalThis.loggedIn = message.success;
    if (message.signalType === 'answer') await pc.setRemoteDescription(sdp);
    if (message.signalType === 'candidate') {
      if (globalThis.pc?.remoteDescription) await pc.addIceCandidate(message.candidate);
      else early.push(message.candidate);
    }
    if (message.signalType === 'leave') globalThis.left = true;
    if (message.signalType !== 'offer') return;
    await open(message.fromUser);
    await pc.setRemoteDescription(sdp);
    for (const candidate of early.splice(0)) await pc.addIceCandidate(candidate);
    await pc.setLocalDescription();
    send('answer', message.fromUser, { sdp: wrap(pc.localDescription) });
  };
}

for (const isBare of [false, true]) {
  test(`a client of the original server is called and calls, with ${isBare ? 'bare' : 'wrapped'} SDP`, async () => {
    const server = await serve();
    const anna = await online(server, 'Anna');
    const old = await open(`${server.url}healthz`, 'Old');
    await old.eval(originalClient, ['Old', isBare]);
    await old.until(() => globalThis.loggedIn === '1');
    const bothWays = async () => {
      await anna.sees_pictures_of('Old');
      await old.until(() => pc.connectionState === 'connected' && received.size === 2);
    };
    await anna.call('Old');
    await bothWays();
    await anna.press('Hang up');
    await old.until(() => globalThis.left);
    await old.eval(() => dial('Anna'));
    await anna.answers();
    await bothWays();
    await old.eval(() => leave('Anna'));
    await anna.until(() => document.body.dataset.view === 'home');
    assert.deepEqual(await anna.eval(() => uncaught), []);
  });
}

/** Waits until each of them sees moving pictures of all others, and says how long that took. */
async function seeEachOther(people, start) {
  const last = performance.now();
  await Promise.all(people.map((one) => one.connected(people.length - 1)));
  await Promise.all(people.map((one) => one.sees_pictures_of(...people.filter((o) => o !== one).map(({ name }) => name))));
  const [all, rest] = [start, last].map((time) => Math.round(performance.now() - time));
  console.log(`${people.length} people see each other ${rest} ms after the last Answer, ${all} ms after the first press`);
}

test('two people talk, hang up, and talk again the other way round', async () => {
  const server = await serve();
  const anna = await online(server, 'Anna', { picture: 'full' });
  const bob = await online(server, 'Bob', { viewport: PHONE });
  const start = performance.now();
  await anna.call('Bob');
  await bob.answers();
  await seeEachOther([anna, bob], start);
  const stage = await anna.page.locator('.tile:not(.own)').boundingBox();
  assert.ok(stage.width * stage.height > 0.8 * DESKTOP.width * DESKTOP.height, 'the picture fills the window');
  const track = await anna.eval(() => connections[0].getSenders().find((s) => s.track.kind === 'video').track.getSettings());
  assert.deepEqual([track.width, track.height], [1280, 720]);
  await anna.press('Hang up');
  await bob.notice('Anna hung up');
  await anna.until(() => connections[0].getSenders().every((s) => !s.track || s.track.readyState === 'ended'));
  assert.equal(await anna.eval(() => document.activeElement.id), 'homeTitle', 'no keyboard opens');
  await connect(bob, anna);
});

test('a caller is let in, a third is invited, and who leaves is gone for all', async () => {
  const server = await serve();
  const [anna, bob, cleo, dan] = await everybody(server, 'Anna', 'Bob', 'Cleo', 'Dan');
  await connect(anna, bob);
  await cleo.call('Bob');
  await bob.banner('Cleo is calling and wants to join');
  await bob.press('Let in');
  await anna.notice('Cleo joined the call');
  const three = [anna, bob, cleo];
  await seeEachOther(three, performance.now());
  await anna.press('Add');
  await anna.field('Name of the person to add').fill('Dan');
  await anna.page.locator('#addForm').getByRole('button').click();
  await anna.until(() => document.activeElement.id === 'add'); // not lost with the panel
  await dan.answers();
  const four = [...three, dan];
  await seeEachOther(four, performance.now());
  await anna.shot('call-4-desktop');
  // From four people on, each sender is capped.
  await Promise.all(four.map((one) => one.until(() => connections.filter(({ connectionState }) => connectionState === 'connected').every((pc) => {
    const [encoding] = pc.getSenders().find(({ track }) => track?.kind === 'video').getParameters().encodings;
    return encoding.maxBitrate === 500_000 && encoding.scaleResolutionDownBy === 2;
  }))));
  await anna.press('Hang up');
  await bob.notice('Anna left the call');
  await Promise.all([bob, cleo, dan].map((one) => one.connected(2)));
  // Who has left is not let in by the old id, but rings.
  await anna.call('Bob');
  await bob.banner('Anna is calling');
});

test('somebody who is removed is gone for all, and has to ring to come back to all', async () => {
  const server = await serve();
  const people = await everybody(server, 'Anna', 'Bob', 'Cleo');
  const [anna, bob, cleo] = people;
  await connect(anna, bob);
  await cleo.call('Bob');
  await bob.press('Let in');
  await Promise.all(people.map((one) => one.connected(2)));
  anna.page.once('dialog', (dialog) => dialog.accept());
  await anna.page.locator('.tile', { hasText: 'Cleo' }).getByRole('button', { name: /^Remove .*Cleo/ }).click();
  await cleo.notice('Anna removed you from the call');
  await Promise.all([anna, bob].map((one) => one.notice('Cleo was removed from the call')));
  await Promise.all([anna, bob].map((one) => one.connected(1)));
  await cleo.call('Bob');
  await bob.banner('Cleo is calling and wants to join');
  await bob.press('Mute'); // the two who are left know the same call
  await anna.page.locator('.tile:not(.own) .badge', { hasText: 'Muted' }).waitFor();
  await bob.press('Let in');
  await Promise.all(people.map((one) => one.connected(2)));
  // The other way round: now it is the one who removed that calls the one who is let in.
  cleo.page.once('dialog', (dialog) => dialog.accept());
  await cleo.page.locator('.tile', { hasText: 'Anna' }).getByRole('button', { name: /^Remove .*Anna/ }).click();
  await anna.notice('Cleo removed you from the call');
  await anna.call('Bob');
  await bob.press('Let in');
  await Promise.all(people.map((one) => one.connected(2)));
  await anna.press('Hang up');
  await bob.notice('Anna left the call');
});

test('six people see each other, and no more get in', async () => {
  const server = await serve();
  const people = await everybody(server, 'Anna', 'Bob', 'Cleo', 'Dan', 'Eve', 'Finn');
  const [anna, bob, ...late] = people;
  const start = performance.now();
  await anna.call('Bob');
  await bob.answers();
  await anna.connected(1);
  for (const guest of late) {
    await anna.press('Add');
    await anna.field('Name of the person to add').fill(guest.name);
    await anna.page.locator('#addForm').getByRole('button').click();
  }
  await Promise.all(late.map((guest) => guest.answers()));
  await seeEachOther(people, start);
  await anna.shot('call-6-desktop');
  await anna.page.setViewportSize(PHONE);
  await anna.shot('call-6-phone');
  const gil = await online(server, 'Gil');
  await gil.call('Anna');
  await gil.notice('Anna is in another call');
  await Promise.all(people.map((one) => one.connected(5)));
});

test('both call each other at once, and one call comes of it', async () => {
  const server = await serve();
  const anna = await online(server, 'Anna', { init: devices.prompting });
  const bob = await online(server, 'Bob', { init: devices.prompting });
  await Promise.all([anna.call('Bob'), bob.call('Anna')]);
  await Promise.all([anna, bob].map((one) => one.eval(() => allow())));
  await Promise.all([anna.sees_pictures_of('Bob'), bob.sees_pictures_of('Anna')]);
  await Promise.all([anna, bob].map((one) => one.connected(1)));
  await bob.press('Hang up');
  await anna.notice('Bob hung up');
});

test('one calls while the other is still being asked for a camera to call', async () => {
  const server = await serve();
  const anna = await online(server, 'Anna', { init: devices.prompting });
  const bob = await online(server, 'Bob');
  await anna.call('Bob');
  await bob.call('Anna');
  await bob.sees('Calling Anna…');
  await anna.banner('Bob is calling');
  await anna.eval(() => allow());
  await Promise.all([anna.sees_pictures_of('Bob'), bob.sees_pictures_of('Anna')]);
});

test('a call is hung up while it is answered', async () => {
  const server = await serve();
  const anna = await online(server, 'Anna');
  const bob = await online(server, 'Bob', { init: devices.prompting });
  await anna.call('Bob');
  await bob.answers();
  await bob.sees('Answering');
  await anna.press('Hang up');
  await bob.notice('You missed a call from Anna');
  await bob.eval(() => allow());
  await connect(bob, anna);
  await Promise.all([anna.connected(1), bob.connected(1)]);
});

test('"not now" is pressed while the prompt is open', async () => {
  const server = await serve();
  const anna = await online(server, 'Anna');
  const bob = await online(server, 'Bob', { init: devices.prompting });
  await anna.call('Bob');
  await bob.answers();
  await bob.sees('Answering');
  await bob.press('Not now');
  await anna.notice('Bob cannot talk right now');
  await bob.eval(() => allow());
  await bob.until(() => document.body.dataset.view === 'home');
  assert.equal(await bob.eval(() => connections.length), 0);
});

test('a page that is loaded again in a call says so, and calls again', async () => {
  const server = await serve();
  const [anna, bob] = await everybody(server, 'Anna', 'Bob');
  await connect(anna, bob);
  await bob.page.reload();
  await anna.notice('Bob hung up');
  await bob.notice('You are online as'); // by itself
  await connect(bob, anna);
  // Firefox closes the connection to the server after this event, and before `pagehide`.
  await anna.eval(() => { dispatchEvent(new Event('beforeunload')); });
  await bob.notice('Anna hung up');
});

test('a server that restarts does not end a call, and everybody comes back', async () => {
  const server = await serve();
  const people = await everybody(server, 'Anna', 'Bob', 'Cleo');
  const [anna, bob, cleo] = people;
  await connect(anna, bob);
  await cleo.call('Anna');
  await anna.press('Let in');
  await Promise.all(people.map((one) => one.connected(2)));
  await server.stop();
  await Promise.all(people.map((one) => one.notice('The call goes on')));
  await serve('--listen', `127.0.0.1:${server.ws}`);
  await Promise.all(people.map((one) => one.until(() => document.querySelector('#who').dataset.line === 'online')));
  // The pairs offer anew, which is how the server learns of them; then all settle.
  await Promise.all(people.map((one) => one.until(() => connections.every((pc) => pc.signalingState === 'stable' || pc.signalingState === 'closed'))));
  await Promise.all(people.map((one) => one.connected(2)));
  await Promise.all([
    anna.sees_pictures_of('Bob', 'Cleo'), bob.sees_pictures_of('Anna', 'Cleo'), cleo.sees_pictures_of('Anna', 'Bob'),
  ]);
  await anna.press('Hang up');
  await bob.notice('Anna left the call');
});

test('a server that restarts while it rings does not end the call', async () => {
  const server = await serve();
  const [anna, bob] = await everybody(server, 'Anna', 'Bob');
  await anna.call('Bob');
  await bob.banner('Anna is calling');
  await server.stop();
  await anna.until(() => document.querySelector('#who').dataset.line === 'connecting');
  await serve('--listen', `127.0.0.1:${server.ws}`);
  await Promise.all([anna, bob].map((one) => one.until(() => document.querySelector('#who').dataset.line === 'online')));
  await bob.answers();
  await Promise.all([anna.sees_pictures_of('Bob'), bob.sees_pictures_of('Anna')]);
});

test('a line that is lost in a call comes back without anybody noticing', async () => {
  const server = await serve();
  const [anna, bob] = await everybody(server, 'Anna', 'Bob');
  await connect(anna, bob);
  await bob.eval(() => sockets.at(-1).close());
  await bob.until(() => sockets.length >= 2 && document.querySelector('#who').dataset.line === 'online');
  await anna.until(() => connections[0].signalingState === 'stable');
  await bob.press('Hang up');
  await anna.notice('Bob hung up');
});

test('a call whose two lines are gone is still hung up on both sides', async () => {
  const server = await serve();
  const [anna, bob] = await everybody(server, 'Anna', 'Bob');
  await connect(anna, bob);
  await server.stop();
  await bob.notice('The call goes on');
  await bob.press('Hang up');
  await anna.until(() => document.body.dataset.view === 'home');
});

test('a killed browser is noticed', async () => {
  const server = await serve();
  const anna = await online(server, 'Anna');
  const other = await launch();
  const bob = await online(server, 'Bob', { from: other });
  await connect(anna, bob);
  const start = performance.now();
  const crash = await other.newBrowserCDPSession();
  crash.send('Browser.crash').catch(() => {});
  await anna.until(() => document.body.dataset.view === 'home');
  console.log(`a killed browser is noticed after ${Math.round(performance.now() - start)} ms`);
  await anna.notice('The connection to Bob was lost');
});

for (const caller of ['Anna', 'Bob']) test(`somebody whose network is gone is shown as such, and comes back; ${caller} had called`, async () => {
  const server = await serve();
  const [anna, bob] = await everybody(server, 'Anna', 'Bob');
  if (caller === 'Anna') await connect(anna, bob);
  else await connect(bob, anna);
  // As the browser says it when packets stop: the state is what the page reads.
  const set = (state) => anna.eval((value) => {
    Object.defineProperty(connections[0], 'connectionState', { configurable: true, get: () => value });
    connections[0].dispatchEvent(new Event('connectionstatechange'));
  }, state);
  await set('disconnected');
  await anna.sees('Reconnecting…');
  await set('failed'); // another way is looked for
  // Whoever had called makes the offer.
  const called = caller === 'Anna' ? bob : anna;
  await called.until(() => heard.some(({ signalType, restart }) => signalType === 'offer' && restart));
  await set('connected');
  await anna.page.getByText('Reconnecting…').waitFor({ state: 'hidden' });
  await Promise.all([anna.sees_pictures_of('Bob'), bob.sees_pictures_of('Anna')]);
});

test('malformed messages break nothing', async () => {
  const server = await serve();
  const [anna, bob] = await everybody(server, 'Anna', 'Bob');
  const mallory = await open(`${server.url}healthz`);
  await mallory.eval(() => new Promise((resolve) => {
    const socket = new WebSocket(location.origin.replace('http', 'ws'));
    globalThis.say = (toUser, signalType, fields = {}) => socket.send(JSON.stringify({ signalType, fromUser: 'mallory', toUser, ...fields }));
    socket.onopen = () => say('', 'login');
    socket.addEventListener('message', resolve, { once: true });
  }));
  const nonsense = () => mallory.eval(() => {
    for (const to of ['Anna', 'Bob']) {
      for (const sdp of [undefined, null, 7, [], {}, 'v=0', { type: 'offer', sdp: {} }]) {
        for (const group of [undefined, null, 7, {}, 'g'.repeat(1000)]) {
          for (const type of ['answer', 'pranswer', 'leave']) say(to, type, { sdp, group, reason: sdp });
          say(to, 'offer', { sdp: sdp === 'v=0' ? '' : sdp, group, mesh: true });
          say(to, 'candidate', { candidate: sdp, group });
        }
      }
      say(to, 'candidate', { candidate: { candidate: 'x'.repeat(10_000) } });
    }
  });
  await nonsense();
  await connect(anna, bob);
  await nonsense();
  await mallory.eval(() => say('Anna', 'offer', { sdp: { type: 'offer', sdp: 'v=0' }, group: 'g' }));
  await anna.banner('mallory is calling');
  await anna.press('Let in'); // what it sent is no offer: the pair ends, the call does not
  await mallory.until(() => heard.some(({ signalType, fromUser }) => signalType === 'leave' && fromUser === 'Anna'));
  await Promise.all([anna.connected(1), bob.connected(1)]);
  await bob.sees_pictures_of('Anna');
  for (const one of [anna, bob]) assert.deepEqual(await one.eval(() => uncaught), []);
});

test('of the messages of a peer so many wait for the browser, and no more', async () => {
  const server = await serve();
  const anna = await online(server, 'Anna');
  const taken = await anna.eval(async () => {
    const { Peer } = await import('./peer.js');
    const on = { change() {}, lost() {} };
    const peer = new Peer({ name: 'Bob', configuration: {}, media: { tracks: {} }, send() {}, on });
    let goOn;
    connections.at(-1).setRemoteDescription = () => new Promise((resolve) => { goOn = resolve; });
    peer.receive({ signalType: 'offer', sdp: 'v=0' });
    let count = 0;
    for (let i = 0; i < 1000; i += 1) peer.receive({ get signalType() { count += 1; return 'candidate'; }, candidate: '' });
    while (!goOn) await new Promise((resolve) => { setTimeout(resolve); });
    goOn();
    while (count < 199) await new Promise((resolve) => { setTimeout(resolve); });
    await new Promise((resolve) => { setTimeout(resolve, 100); }); // a message too many would come now
    return count;
  });
  assert.equal(taken, 199);
});

test('many who ring fill neither the page nor the line', async () => {
  const server = await serve();
  const anna = await online(server, 'Anna');
  const crowd = await open(`${server.url}healthz`);
  const start = performance.now();
  await crowd.eval(async () => {
    const callers = Array.from({ length: 30 }, (_, i) => {
      const socket = new WebSocket(location.origin.replace('http', 'ws'));
      const say = (signalType, toUser, fields) => socket.send(JSON.stringify({ signalType, fromUser: `caller ${i}`, toUser, ...fields }));
      socket.onopen = () => say('login', '');
      return new Promise((resolve) => { socket.addEventListener('message', () => resolve(say), { once: true }); });
    });
    for (const [i, say] of (await Promise.all(callers)).entries()) say('offer', 'Anna', { sdp: 'v=0', group: `g${i}` });
  });
  await anna.until(() => heard.filter(({ signalType }) => signalType === 'offer').length === 30);
  assert.equal(await anna.page.locator('#callers li').count(), 3);
  const refusals = await anna.eval(() => sent.filter(({ signalType }) => signalType === 'leave').length);
  assert.ok(refusals <= 5 * Math.ceil((performance.now() - start) / 1000), `${refusals} refusals, at most 5 a second`);
  assert.equal(await anna.page.locator('#peopleList li').count(), 20);
});
