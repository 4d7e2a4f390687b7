/*
 * What an idle PeerJS client and its login cost this server, and PeerJS's own one from npm, in turns:
 *
 *   npm install --prefix /some/folder peer
 *   taskset -c 1 node tests/bench/peerjs.mjs target/release/signal-server /some/folder/node_modules/.bin/peerjs
 *
 * Each server runs on core 0, is started anew for each round, and gets 1,000 clients that do nothing after their login.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const [OURS, THEIRS] = process.argv.slice(2);
const [PORT, CLIENTS, AT_ONCE, ROUNDS] = [9876, 1_000, 8, 7];
/** For what a server puts off after a login. */
const SETTLE_MS = 2_000;

const SERVERS = [
  ['signal-server', OURS, '--listen', `127.0.0.1:${PORT}`, '--tls-listen', 'off', '--peerjs', 'peerjs', '--max-connections', '0', '--max-per-ip', '0'],
  ['peer from npm', THEIRS, '--host', '127.0.0.1', '--port', PORT, '--key', 'peerjs'],
];

/** A client that has its id; its socket. */
async function logIn(number) {
  const socket = connect(PORT, '127.0.0.1');
  socket.write(`GET /peerjs?key=peerjs&id=client-${number}&token=t${number}&version=1.5.5 HTTP/1.1\r\nHost: x\r\n`
    + 'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n'
    + 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n');
  socket.on('error', () => {}); // When the server is killed.
  let received = '';
  while (!received.includes('{"type":"OPEN"}')) received += (await once(socket, 'data'))[0];
  return socket;
}

async function untilListening() {
  for (;;) {
    const socket = connect(PORT, '127.0.0.1');
    const isListening = await once(socket, 'connect').then(() => true, () => false);
    socket.destroy();
    if (isListening) return;
    await sleep(50);
  }
}

const resident = (pid) => Number(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8').match(/^Rss: +(\d+)/m)[1]);
/** Processor time, in ms. */
const busy = (pid) => {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return 10 * (Number(fields[11]) + Number(fields[12]));
};

async function measure([, ...command]) {
  const server = spawn('taskset', ['-c', '0', ...command], { stdio: 'ignore' });
  const ended = once(server, 'exit');
  await untilListening();
  await sleep(SETTLE_MS);
  const [memory, processor, start] = [resident(server.pid), busy(server.pid), performance.now()];
  const sockets = [];
  let next = 0;
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    while (next < CLIENTS) sockets.push(await logIn(next++));
  }));
  const seconds = (performance.now() - start) / 1_000;
  const used = busy(server.pid) - processor;
  await sleep(SETTLE_MS);
  const each = (resident(server.pid) - memory) / CLIENTS;
  server.kill('SIGKILL');
  await ended;
  sockets.forEach((socket) => socket.destroy());
  return [memory / 1_024, each, CLIENTS / seconds, (1_000 * used) / CLIENTS];
}

const results = SERVERS.map(() => []);
for (let round = 0; round < ROUNDS; round += 1) {
  const order = round % 2 ? [1, 0] : [0, 1];
  for (const side of order) results[side].push(await measure(SERVERS[side]));
}
console.log(`medians of ${ROUNDS} rounds (least to most)`);
SERVERS.forEach(([name], side) => {
  const figures = ['MiB with nobody', 'KiB each client', 'logins/s', 'µs processor a login'].map((what, column) => {
    const values = results[side].map((row) => row[column]).sort((a, b) => a - b);
    const short = (value) => value.toFixed(value < 100 ? 1 : 0);
    return `${what} ${short(values[ROUNDS >> 1])} (${short(values[0])} to ${short(values.at(-1))})`;
  });
  console.log(`${name}: ${figures.join(', ')}`);
});
