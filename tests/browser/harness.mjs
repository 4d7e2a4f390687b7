/*
 * What the browser tests share: the server as its own process, one Chromium, and people with a page each.
 *
 * A person is a browser context of their own. Tests press what a person would press, found by the words a
 * person would read, and wait for what that person would see. Nothing here sleeps.
 */

import { chromium } from 'playwright-core';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, mkdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, afterEach, before, test as nodeTest } from 'node:test';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const PROGRAM = process.env.SIGNAL_SERVER ?? join(ROOT, 'target/debug/signal-server');
export const SHOTS = process.env.SCREENSHOTS ?? join(ROOT, 'target/screenshots');
const CHROMIUM = process.env.CHROME ?? '/usr/bin/chromium';
/** How long anything may take that must happen, on a slow and busy machine: a test that passes never waits for it. */
export const PATIENCE_MS = 45_000;

export const PHONE = { width: 390, height: 844 };
export const DESKTOP = { width: 1280, height: 800 };

const FLAGS = [
  // The second of Chromium's cameras has grey pictures of 16 bits, which no call can carry; the third is an ordinary one.
  '--use-fake-device-for-media-stream=fps=10,device-count=3',
  '--use-fake-ui-for-media-stream',
  // Addresses instead of .local names, which need multicast that containers do not have.
  '--disable-features=WebRtcHideLocalIpsWithMdns',
  '--disable-background-timer-throttling',
  '--disable-backgrounding-occluded-windows',
  '--disable-renderer-backgrounding',
  '--autoplay-policy=no-user-gesture-required',
];

/** What tests look at from outside: the connections and sockets that the page makes, and what fails in it. */
function spy() {
  globalThis.connections = [];
  globalThis.sockets = [];
  globalThis.sent = [];
  globalThis.heard = [];
  globalThis.uncaught = [];
  const keep = (Type, list, then = () => {}) => class extends Type {
    constructor(...args) { super(...args); list.push(this); then(this); }
  };
  globalThis.RTCPeerConnection = keep(RTCPeerConnection, connections);
  globalThis.WebSocket = keep(WebSocket, sockets, (socket) => {
    socket.addEventListener('message', ({ data }) => heard.push(JSON.parse(data)));
    const send = socket.send.bind(socket);
    socket.send = (data) => { sent.push(JSON.parse(data)); send(data); };
  });
  addEventListener('error', ({ message }) => uncaught.push(message));
  addEventListener('unhandledrejection', ({ reason }) => uncaught.push(String(reason)));
  addEventListener('securitypolicyviolation', ({ violatedDirective }) => uncaught.push(`CSP: ${violatedDirective}`));
  // When a press counts again: the page ignores those that are too soon after something appeared or went.
  globalThis.changed = 0;
  const isChange = ({ type, target, attributeName, oldValue }) => (type === 'childList' ? target.id === 'callers'
    : target === document.body && target.getAttribute(attributeName) !== oldValue);
  new MutationObserver((records) => { if (records.some(isChange)) changed = performance.now(); }).observe(document, {
    subtree: true, childList: true, attributeFilter: ['data-view'], attributeOldValue: true,
  });
  try { if (!globalThis.firstVisit) localStorage.setItem('checked', localStorage.getItem('checked') ?? '1'); } catch { /* about:blank */ }
}

/** A test, which may take this long on a busy machine. */
export const test = (name, behaviour) => nodeTest(name, { timeout: 4 * PATIENCE_MS }, behaviour);

let browser = null;
const cleanups = [];

before(async () => { browser = await launch(); });
after(() => browser?.close());
afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean();
});

export function launch() {
  return chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
}

/** Starts a server; it ends with the test. */
export async function serve(...options) {
  const child = spawn(PROGRAM, [
    '--listen', '127.0.0.1:0', '--tls-listen', 'off', '--max-rate', '0', ...options,
  ], { stdio: ['ignore', 'ignore', 'pipe'] });
  const ended = once(child, 'exit');
  const server = {
    log: '',
    async stop(signal = 'SIGTERM') { child.kill(signal); await ended; },
    /** Waits for these words in the log. */
    async says(words) { while (!server.log.includes(words)) await once(lines, 'line'); },
  };
  cleanups.push(() => server.stop('SIGKILL'));
  const lines = createInterface(child.stderr);
  await new Promise((resolve, reject) => {
    // The log has a line for each port.
    lines.on('line', (line) => {
      server.log += `${line}\n`;
      const [, scheme, port] = line.match(/listening on (wss?):\/\/\S+:(\d+)/) ?? [];
      if (scheme) server[scheme] = Number(port);
      if (server.ws && (server.wss || !options.includes('--tls-listen'))) resolve();
    });
    ended.then(() => reject(new Error(`the server ended: ${server.log}`)));
  });
  server.url = `http://localhost:${server.ws}/`;
  return server;
}

/** Does this when the test has ended. */
export const atEnd = (clean) => cleanups.push(clean);

/** A folder that goes with the test. */
export async function folder() {
  const path = await mkdtemp(join(tmpdir(), 'page-'));
  cleanups.push(() => rm(path, { recursive: true, force: true }));
  return path;
}

export async function run(program, ...args) {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let [out, err] = ['', ''];
  child.stdout.on('data', (data) => { out += data; });
  child.stderr.on('data', (data) => { err += data; });
  const [code] = await once(child, 'close');
  if (code !== 0) throw new Error(`${program} ${args.join(' ')}: ${out}${err}`);
  return { out, err };
}

/** A users file with a token for each name, and a function that removes one. */
export async function usersFile(...names) {
  const file = join(await folder(), 'users');
  const lines = new Map();
  const tokens = {};
  for (const name of names) {
    const { out, err } = await run(PROGRAM, '--new-user', name, '--url', 'http://localhost:1/');
    lines.set(name, out);
    tokens[name] = err.match(/token=([\w-]+)/)[1];
  }
  const write = () => writeFile(file, [...lines.values()].join(''), { mode: 0o600 });
  await write();
  return { file, tokens, remove: (name) => { lines.delete(name); return write(); } };
}

export class Person {
  constructor(page, context, name) { Object.assign(this, { page, context, name }); }

  button(name) { return this.page.getByRole('button', { name, exact: true }); }
  field(name) { return this.page.getByRole('textbox', { name }); }
  async press(name) {
    const button = this.button(name);
    await button.waitFor();
    await this.settled();
    await button.click();
  }

  /** Waits until the page says this, anywhere a person could read it. */
  sees(words) { return this.page.getByText(words).filter({ visible: true }).first().waitFor(); }
  notice(words) { return this.page.locator('#notice').filter({ hasText: words }).waitFor(); }
  async says() { return (await this.page.locator('#notice').textContent()).replace(/[\u2066-\u2069]/g, ''); }
  until(condition, argument) { return this.page.waitForFunction(condition, argument, { polling: 50 }); }
  eval(code, argument) { return this.page.evaluate(code, argument); }
  banner(words) { return this.page.locator('#banner').filter({ hasText: words }).waitFor(); }
  /** Waits until presses count again after the view has changed. */
  settled() { return this.until(() => performance.now() > changed + 520); }

  async goOnline(name = this.name) {
    await this.field('Your name').fill(name);
    await this.press('Go online');
    await this.page.locator('#who[data-line="online"]').waitFor();
  }

  async call(name) {
    await this.field('Call somebody by name').fill(name);
    await this.press('Call');
  }

  answers(button = 'Answer') { return this.press(button); }

  /** Waits until moving pictures of these people are shown, from now on. */
  async sees_pictures_of(...names) {
    for (const name of names) {
      const video = this.page.locator('.tile:not(.own)', { hasText: name }).locator('video');
      await video.waitFor({ state: 'attached' });
      const handle = await video.elementHandle();
      const shown = await handle.evaluate((v) => v.getVideoPlaybackQuality().totalVideoFrames);
      await this.until(([v, before]) => v.videoWidth > 16 && !v.closest('.tile').matches('.unseen')
        && v.getVideoPlaybackQuality().totalVideoFrames > before + 3, [handle, shown]);
    }
  }

  /** Waits until so many of the page's connections stand, and no more. */
  connected(count) {
    return this.until((wanted) => connections.filter(({ connectionState }) => connectionState === 'connected').length === wanted
      && connections.filter(({ signalingState }) => signalingState !== 'closed').length === wanted, count);
  }

  shot(name) {
    return mkdir(SHOTS, { recursive: true }).then(() => this.page.screenshot({ path: join(SHOTS, `${name}.png`) }));
  }

  kill() { return this.context.close(); }
}

/** Opens the page for somebody, in a context of their own. */
export async function open(url, name = '', options = {}) {
  const { init, clock, from = browser, picture = 'full', ...rest } = options;
  const context = await from.newContext({ viewport: DESKTOP, locale: 'en-GB', ...rest });
  cleanups.push(() => context.close().catch(() => {}));
  context.setDefaultTimeout(PATIENCE_MS);
  if (picture === 'small') await context.addInitScript(devices.small);
  if (init) await context.addInitScript(init);
  await context.addInitScript(spy);
  const page = await context.newPage();
  if (clock) await page.clock.install();
  // Another program on this machine may have changed the network meanwhile, which Chromium says once.
  await page.goto(url).catch((error) => {
    if (!error.message.includes('ERR_NETWORK_CHANGED')) throw error;
    return page.goto(url);
  });
  return new Person(page, context, name);
}

export async function online(server, name, options = {}) {
  const { url = server.url, ...rest } = options;
  const person = await open(url, name, rest);
  await person.goOnline();
  return person;
}

/** Somebody who speaks the protocol without the page. */
export async function bare(server, name) {
  const person = await open(`${server.url}healthz`, name);
  await person.eval((me) => new Promise((resolve) => {
    const socket = new WebSocket(location.origin.replace('http', 'ws'));
    globalThis.say = (toUser, signalType, fields = {}) => socket.send(JSON.stringify({ signalType, fromUser: me, toUser, ...fields }));
    socket.onopen = () => say('', 'login');
    socket.addEventListener('message', resolve, { once: true });
  }), name);
  return person;
}

/** People who are online, each under a name of this list. */
export function everybody(server, ...names) {
  const picture = names.length > 3 ? 'small' : 'full';
  return Promise.all(names.map((name) => online(server, name, { picture })));
}

/** A call between these two. */
export async function connect(caller, callee) {
  await caller.call(callee.name);
  await callee.answers();
  await Promise.all([caller.sees_pictures_of(callee.name), callee.sees_pictures_of(caller.name)]);
}

/** Init scripts that stand for devices. */
export const devices = {
  /** `getUserMedia` fails for these kinds with this error. */
  failing: (kinds, error) => `{
    const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = (wish) => {
      globalThis.asked = [...(globalThis.asked ?? []), Object.keys(wish).join()];
      const fails = ${JSON.stringify(kinds)}.some((kind) => wish[kind]);
      return fails ? Promise.reject(new DOMException('', '${error}')) : real(wish);
    };
  }`,
  /** `getUserMedia` waits until `allow()` is called. */
  prompting: `{
    const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    const allowed = new Promise((resolve) => { globalThis.allow = resolve; });
    navigator.mediaDevices.getUserMedia = (wish) => allowed.then(() => real(wish));
  }`,
  /** A screen to share that looks like one, for pictures. Chromium's own fake screen is one colour. */
  screen: `navigator.mediaDevices.getDisplayMedia = async () => {
    const canvas = document.createElement('canvas');
    Object.assign(canvas, { width: 1600, height: 900 });
    const context = canvas.getContext('2d');
    let x = 0;
    setInterval(() => {
      context.fillStyle = '#f6f4ee'; context.fillRect(0, 0, 1600, 900);
      context.fillStyle = '#20304a'; context.font = '64px sans-serif';
      context.fillText('Budget for the summer trip', 120, 160);
      for (let i = 0; i < 6; i += 1) { context.fillRect(120, 260 + i * 90, 400 + ((i * 173 + x) % 900), 44); }
      x += 4;
    }, 100);
    globalThis.sharedTrack = canvas.captureStream(10).getVideoTracks()[0];
    return new MediaStream([sharedTrack]);
  };`,
  /** Coding six larger pictures is too much for two cores: `{ picture: 'small' }`. */
  small: `{
    const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = (wish) => real({
      ...wish, ...(wish.video && { video: { ...wish.video, width: 480, height: 270, frameRate: 5 } }),
    });
  }`,
  firstVisit: 'globalThis.firstVisit = true;',
};
