/* Calls through a TURN server and from the network's address, and the protocol from a browser's console. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { connect, devices, folder, online, open, PHONE, ROOT, run, serve, test } from './harness.mjs';

/** This machine's address on a network. */
const LAN = Object.values(networkInterfaces()).flat().find(({ family, internal }) => family === 'IPv4' && !internal)?.address;

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  await new Promise((resolve) => { server.close(resolve); });
  return port;
}

/** Starts coturn as docs/turn.md says, for the addresses of this machine. */
async function coturn(t, secret, address) {
  const port = await freePort();
  const child = spawn('turnserver', [
    '-n', '--use-auth-secret', `--static-auth-secret=${secret}`, '--realm=test', '--no-cli', '--no-tls', '--no-dtls',
    '--no-tcp-relay', `--listening-ip=${address}`, `--relay-ip=${address}`, `--listening-port=${port}`,
    '--allow-loopback-peers', '--log-file=stdout', '--simple-log', `--pidfile=${join(await folder(), 'pid')}`,
  ], { stdio: ['ignore', 'pipe', 'ignore'] });
  t.after(() => child.kill('SIGKILL'));
  await new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (code) => reject(new Error(`turnserver ended with ${code}`)));
    child.stdout.on('data', (text) => { if (String(text).includes('Total General servers')) resolve(); });
  });
  return `turn:${address}:${port}`;
}

/** The kinds of the two candidates that the connection uses. */
const way = (person) => person.eval(async () => {
  const stats = await connections.at(-1).getStats();
  const pair = [...stats.values()].find(({ type, nominated, state }) => type === 'candidate-pair' && nominated && state === 'succeeded');
  return [stats.get(pair.localCandidateId).candidateType, stats.get(pair.remoteCandidateId).candidateType];
});

test('with #relay in its address, the page uses the TURN server alone', async (t) => {
  const secret = join(await folder(), 'secret');
  await writeFile(secret, 'a-secret-that-nobody-knows-1234567890', { mode: 0o600 });
  const turn = await coturn(t, await readFile(secret, 'utf8'), LAN ?? '127.0.0.1');
  const server = await serve('--turn', turn, '--turn-secret', secret);
  const url = `${server.url}#relay`;
  const [anna, bob] = await Promise.all(['Anna', 'Bob'].map((name) => online(server, name, { url })));
  await connect(anna, bob);
  assert.deepEqual(await way(anna), ['relay', 'relay']);
  // Without it the direct way is found, with the same settings.
  const [cleo, dan] = await Promise.all(['Cleo', 'Dan'].map((name) => online(server, name)));
  await connect(cleo, dan);
  assert.ok(!(await way(cleo)).includes('relay'));
});

test('with #relay and no TURN server there is no way, and the page says so', async () => {
  const server = await serve();
  const anna = await online(server, 'Anna', { url: `${server.url}#relay`, clock: true });
  const bob = await online(server, 'Bob');
  await anna.call('Bob');
  await bob.answers();
  await anna.sees('Connecting to Bob');
  await anna.page.clock.fastForward(31_000);
  await anna.notice('No connection to Bob could be made');
});

test('new users with phones, from the address on the network: a call, a third, a screen, a line of text', async () => {
  const [cert, key] = await Promise.all(['cert.pem', 'key.pem'].map(async (name) => join(await folder(), name)));
  await run('openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-subj', '/CN=test', '-days', '2', '-out', cert, '-keyout', key);
  const server = await serve('--tls-listen', '0.0.0.0:0', '--cert', cert, '--key', key);
  const url = `https://${LAN ?? '127.0.0.1'}:${server.wss}/`;
  const phone = { viewport: PHONE, isMobile: true, hasTouch: true, ignoreHTTPSErrors: true, init: devices.firstVisit + devices.screen };
  const anna = await open(url, 'Anna', phone);
  await anna.shot('walk-1-first-visit');
  await anna.goOnline();
  await anna.shot('walk-2-online');
  const link = await anna.page.locator('#link').inputValue();
  assert.equal(link, `${url}#call=Anna`);
  const bob = await open(link, 'Bob', phone);
  await bob.shot('walk-3-invited');
  await bob.field('Your name').fill('Bob');
  await bob.press('Call Anna');
  await bob.sees('This is what Anna will see');
  await bob.shot('walk-4-preview');
  await bob.press('Call Anna');
  await anna.banner('Bob is calling');
  await anna.shot('walk-5-called');
  await anna.answers();
  await Promise.all([anna.sees_pictures_of('Bob'), bob.sees_pictures_of('Anna')]);
  await anna.shot('walk-6-call');
  const cleo = await open(link, 'Cleo', phone);
  await cleo.field('Your name').fill('Cleo');
  await cleo.press('Call Anna');
  await cleo.sees('This is what Anna will see');
  await cleo.press('Call Anna');
  await anna.banner('Cleo is calling and wants to join');
  await anna.shot('walk-7-a-third');
  await anna.press('Let in');
  await Promise.all([anna.sees_pictures_of('Bob', 'Cleo'), bob.sees_pictures_of('Anna', 'Cleo')]);
  await anna.shot('walk-8-group');
  await bob.press('Share screen');
  await anna.page.locator('.tile[data-screen]', { hasText: 'Bob' }).waitFor();
  await anna.shot('walk-9-screen');
  await cleo.press('Chat');
  await cleo.field('Write a message').fill('Hello!');
  await cleo.press('Send');
  await anna.until(() => document.getElementById('unread').textContent === '1');
  await anna.shot('walk-10-unread');
  await anna.page.getByRole('button', { name: /^Chat/ }).click();
  await anna.sees('Hello!');
  await anna.shot('walk-11-chat');
  await anna.press('Hang up');
  await anna.shot('walk-12-afterwards');
});

test('the example of docs/protocol.md runs in the console of a browser', async () => {
  const text = await readFile(join(ROOT, 'docs/protocol.md'), 'utf8');
  const [, code, printed] = text.match(/In the console of a browser[^]*?```js\n([^]*?)```[^]*?```jsonl\n([^]*?)```/);
  const server = await serve();
  const page = await open(server.url);
  const lines = [];
  page.page.on('console', (message) => lines.push(message.text()));
  const expected = printed.trim().split('\n');
  const all = new Promise((resolve) => { page.page.on('console', () => lines.length >= expected.length && resolve()); });
  const console = await page.context.newCDPSession(page.page);
  await console.send('Runtime.evaluate', { expression: code, replMode: true });
  await all;
  assert.deepEqual(lines, expected);
});
