/*
 * The real PeerJS library, in apps of other origins. Each app is a page with nothing but the library, in a browser
 * context of its own. All tests run over http with the library's defaults, and over https with another key and path.
 */

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import https from 'node:https';
import { connect as dial, createServer } from 'node:net';
import { once } from 'node:events';
import { join } from 'node:path';
import { atEnd, folder, open, run, serve, test, usersFile } from './harness.mjs';

const LIBRARY = new URL('node_modules/peerjs/dist/', import.meta.url);

/** The app: a peer that notes what happens to it, answers calls with its own picture, and echoes data. */
function page() {
  globalThis.errors = [];
  globalThis.data = [];
  globalThis.left = [];
  globalThis.links = {};
  globalThis.pictures = 0;
  const watch = (connection) => {
    links[connection.peer] = connection;
    connection.on('data', (value) => data.push([connection.peer, value]));
    connection.on('close', () => left.push(connection.peer));
    return new Promise((resolve) => { connection.on('open', resolve); });
  };
  const camera = () => navigator.mediaDevices.getUserMedia({ video: { width: 160, height: 120 }, audio: true });
  const show = (call) => call.on('stream', (stream) => {
    const video = Object.assign(document.createElement('video'), { srcObject: stream, muted: true });
    video.play().then(() => video.requestVideoFrameCallback(() => { pictures += 1; }));
  });
  globalThis.start = async (id, options) => {
    const { MsgPack } = await import('/serializer.msgpack.mjs');
    const all = { config: { iceServers: [] }, serializers: { MsgPack }, ...options };
    globalThis.peer = id ? new Peer(id, all) : new Peer(all);
    peer.on('error', ({ type, message }) => errors.push([type, message, performance.now()]));
    peer.on('connection', watch);
    peer.on('call', async (call) => { show(call); call.answer(await camera()); });
    await new Promise((resolve) => { peer.once('open', resolve); peer.once('error', resolve); });
    return peer.open ? peer.id : errors[0];
  };
  globalThis.join = (id, serialization = 'json') => watch(peer.connect(id, { serialization, label: serialization }));
  globalThis.call = async (id) => show(peer.call(id, await camera()));
}

/** A page with the library; no peer yet. */
async function load(where) {
  const app = await open(where.site, '', { init: `(${page})()`, ignoreHTTPSErrors: true });
  return Object.assign(app, { where });
}

/** Starts the server of the app's pages, and returns its URL. */
async function host(protocol, options) {
  const site = protocol.createServer(options, async ({ url }, response) => {
    response.setHeader('Content-Type', url === '/' ? 'text/html' : 'text/javascript');
    response.end(url === '/' ? '<script src="/peerjs.min.js"></script>' : await readFile(join(LIBRARY.pathname, url)).catch(() => ''));
  });
  await once(site.listen(0, '127.0.0.1'), 'listening');
  atEnd(() => { site.close(); site.closeAllConnections(); });
  return `${protocol === https ? 'https' : 'http'}://localhost:${site.address().port}/`;
}

/** An app whose peer has this id. */
async function online(where, id, options) {
  const app = await load(where);
  assert.equal(await start(app, id, options), id);
  return app;
}

const start = (app, id, options) =>
  app.eval(([id, options]) => globalThis.start(id, options), [id, { ...app.where.options, ...options }]);

/** Connects two apps, sends a value each way, and waits for both. */
async function talk(from, to, [name, back], text = 'hello') {
  await from.eval((name) => join(name), name);
  await say(from, name, to, back, text);
}

async function say(from, name, to, back, text) {
  await from.eval(([name, text]) => links[name].send(text), [name, text]);
  await hears(to, back, text);
  await to.eval(([back, text]) => links[back].send(text), [back, `${text} too`]);
  await hears(from, name, `${text} too`);
}

const hears = (app, id, text) =>
  app.until(([id, text]) => data.some(([from, value]) => from === id && value === text), [id, text]);

/** How long the last login as Alice took, in ms, as the server's log has it. A busy browser does not count. */
function loginTook({ log }) {
  const lines = [...log.matchAll(/^(\S+) .* (\S+) (connected|logged in as "alice")/gm)];
  const [, end, address] = lines.findLast(([, , , what]) => what !== 'connected');
  const [, start] = lines.find(([, , one]) => one === address);
  return Date.parse(end) - Date.parse(start);
}

/** A proxy whose line can be cut as a broken network cuts it: nothing is forwarded any more, and nothing is closed. */
async function cuttable(port) {
  const pairs = [];
  const proxy = createServer((near) => {
    const far = dial(port, '127.0.0.1');
    pairs.push([near, far]);
    for (const [one, other] of [[near, far], [far, near]]) {
      one.on('error', () => {}).pipe(other);
    }
  }).listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  atEnd(() => {
    proxy.close();
    pairs.flat().forEach((socket) => socket.destroy());
  });
  const cut = () => pairs.flat().forEach((socket) => { socket.unpipe(); socket.pause(); });
  return { port: proxy.address().port, cut };
}

async function plain(...options) {
  const server = await serve('--peerjs', 'peerjs', ...options);
  return { server, site: await host(http), options: { host: 'localhost', port: server.ws } };
}

async function secure(...options) {
  const [cert, key] = ['cert.pem', 'key.pem'].map(((path) => (name) => join(path, name))(await folder()));
  await run('openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
    '-days', '1', '-subj', '/CN=localhost', '-keyout', key, '-out', cert);
  const server = await serve('--tls-listen', '127.0.0.1:0', '--cert', cert, '--key', key,
    '--peerjs', 'my key', ...options);
  const site = await host(https, { cert: await readFile(cert), key: await readFile(key) });
  return { server, site, options: { host: 'localhost', port: server.wss, path: '/my/app', key: 'my key', secure: true } };
}

for (const [how, setUp] of [['http', plain], ['https, another key and path', secure]]) {
  const testOver = (name, behaviour) => test(`${name} (${how})`, behaviour);

  testOver('data goes both ways in every serialization', async () => {
    const where = await setUp();
    const [alice, bob] = await Promise.all([online(where, 'alice'), online(where, 'bob')]);
    const rich = '({ text: "ä\u{1f600}", list: [1.5, null, true], bytes: Uint8Array.of(1, 2, 255) })';
    const parts = 'JSON.stringify([value.text, value.list, [...new Uint8Array(value.bytes)]])';
    for (const [serialization, value, read] of [
      ['binary', rich, parts],
      ['binary-utf8', rich, parts],
      ['json', '({ text: "ä\u{1f600}", list: [1.5, null, true] })', 'JSON.stringify(value)'],
      ['raw', 'Uint8Array.of(1, 2, 255)', '[...new Uint8Array(value)].join()'],
      ['raw', '"text"', 'value'],
      ['MsgPack', rich, parts],
    ]) {
      await alice.eval((serialization) => join('bob', serialization), serialization);
      await bob.until((label) => links.alice?.label === label && links.alice.open, serialization);
      for (const [from, to, name] of [[alice, bob, 'bob'], [bob, alice, 'alice']]) {
        await to.eval(() => { data.length = 0; });
        const sent = await from.eval(`(async () => { const value = ${value}; await links.${name}.send(value); return ${read}; })()`);
        await to.until(() => data.length > 0);
        assert.deepEqual(await to.eval(`data.map(([, value]) => ${read})`), [sent], serialization);
      }
    }
    assert.deepEqual([await alice.eval('errors'), await bob.eval('errors')], [[], []]);
  });

  testOver('a media call shows both to each other', async () => {
    const where = await setUp();
    const [alice, bob] = await Promise.all([online(where, 'alice'), online(where, 'bob')]);
    await alice.eval(() => call('bob'));
    await Promise.all([alice, bob].map((app) => app.until(() => pictures > 0)));
  });

  testOver('five make a mesh', async () => {
    const where = await setUp();
    const names = ['a', 'b', 'c', 'd', 'e'];
    const apps = await Promise.all(names.map((name) => online(where, name)));
    await Promise.all(apps.map((app, position) =>
      app.eval((others) => Promise.all(others.map((name) => join(name))), names.slice(position + 1))));
    await Promise.all(apps.map((app) => app.until(() => Object.values(links).filter(({ open }) => open).length === 4)));
    await Promise.all(apps.map((app) => app.eval(() => Object.values(links).forEach((one) => one.send('hello')))));
    await Promise.all(apps.map((app) => app.until(() => data.length === 4)));
    assert.deepEqual(await apps[2].eval('data.map(([name]) => name).sort()'), ['a', 'b', 'd', 'e']);
  });

  testOver('a peer without an id gets one', async () => {
    const where = await setUp();
    const [app, bob] = await Promise.all([load(where), online(where, 'bob')]);
    const id = await start(app, null);
    assert.match(id, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
    await talk(bob, app, [id, 'bob']);
  });

  testOver('an id is taken while its holder is there, and the holder stays', async () => {
    const where = await setUp();
    const [alice, bob, other] = await Promise.all([online(where, 'alice'), online(where, 'bob'), load(where)]);
    const [type, message] = await start(other, 'alice');
    assert.deepEqual([type, message], ['unavailable-id', 'ID "alice" is taken']);
    await talk(bob, alice, ['alice', 'bob']);
  });

  testOver('another key is refused with a reason', async () => {
    const where = await setUp();
    const app = await load(where);
    assert.deepEqual((await start(app, 'alice', { key: 'wrong' })).slice(0, 2), ['server-error', 'Invalid key provided']);
  });

  testOver('an unknown peer is an error after the hold, once', async () => {
    const where = await setUp();
    const alice = await online(where, 'alice');
    const start = await alice.eval(() => { void join('nobody'); return performance.now(); });
    await alice.until(() => errors.length > 0);
    await alice.eval(() => fetch(`${peer.options.secure ? 'https' : 'http'}://localhost:${peer.options.port}/x/id`));
    const [[type, message, time], ...more] = await alice.eval('errors');
    assert.deepEqual([type, message, more], ['peer-unavailable', 'Could not connect to peer nobody', []]);
    assert.ok(time - start > 4_900 && time - start < 6_000, `${time - start} ms`);
  });

  testOver('a call reaches a page that is still loading', async () => {
    const where = await setUp();
    const [alice, page] = await Promise.all([online(where, 'alice'), load(where)]);
    const joined = alice.eval(() => join('bob'));
    await alice.until(() => sent.some(({ type, dst }) => type === 'CANDIDATE' && dst === 'bob'));
    assert.equal(await start(page, 'bob'), 'bob');
    await joined;
    await say(alice, 'bob', page, 'alice', 'late');
    assert.deepEqual(await alice.eval('errors'), []);
  });

  testOver('connections outlive a disconnect, and reconnect() gets the id back', async () => {
    const where = await setUp();
    const [alice, bob, carol] = await Promise.all(['alice', 'bob', 'carol'].map((id) => online(where, id)));
    await talk(alice, bob, ['bob', 'alice']);
    await alice.eval(() => peer.disconnect());
    await where.server.says('closed by the client');
    await say(bob, 'alice', alice, 'bob', 'still here');
    await alice.eval(() => new Promise((resolve) => { peer.once('open', resolve); peer.reconnect(); }));
    await talk(carol, alice, ['alice', 'carol']);
    await say(bob, 'alice', alice, 'bob', 'and here');
    assert.deepEqual(await bob.eval('left'), []);
  });

  testOver('a page that is loaded again has its id at once', async () => {
    const where = await setUp('--log', 'debug');
    const [alice, bob] = await Promise.all([online(where, 'alice', { token: 'a token' }), online(where, 'bob')]);
    for (const token of ['a token', 'another']) {
      await alice.page.reload();
      assert.equal(await start(alice, 'alice', { token }), 'alice');
      const took = loginTook(where.server);
      assert.ok(took < 1_000, `${took} ms`);
    }
    await talk(bob, alice, ['alice', 'bob']);
  });

  testOver('after a cut line the same token has the id at once, and another token soon', async () => {
    const where = await setUp('--log', 'debug');
    const bob = await online(where, 'bob');
    const lines = [];
    for (const [token, least, most] of [['a token', 0, 1_000], ['a token', 0, 1_000], ['another', 2_000, 3_000]]) {
      const line = await cuttable(where.options.port);
      lines.at(-1)?.cut();
      lines.push(line);
      const alice = await online(where, 'alice', { token, port: line.port });
      const took = loginTook(where.server);
      assert.ok(took >= least && took < most, `${token}: ${took} ms`);
      await talk(bob, alice, ['alice', 'bob'], `line ${lines.length}`);
    }
  });

  testOver('with users, an id needs the token of that user', async () => {
    const { file, tokens } = await usersFile('alice', 'bob');
    const where = await setUp('--users', file);
    const app = await load(where);
    for (const [id, token] of [['alice', 'wrong'], ['carol', tokens.alice], ['bob', tokens.alice]]) {
      const [type, message] = await start(app, id, { token });
      assert.deepEqual([type, message], ['server-error', 'Invalid token provided']);
      await app.eval(() => { peer.destroy(); errors.length = 0; });
    }
    const [alice, bob] = await Promise.all(['alice', 'bob'].map((id) => online(where, id, { token: tokens[id] })));
    await talk(alice, bob, ['bob', 'alice']);
    assert.ok(!where.server.log.includes(tokens.alice));
  });
}
