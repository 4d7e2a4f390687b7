/*
 * Every view, in both colour schemes and at six sizes: axe finds nothing, nothing is wider than the
 * window, and what can be pressed can be seen. Pictures of the views are kept in target/screenshots.
 */

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { bare, connect, DESKTOP, devices, everybody, online, open, PHONE, serve, test, usersFile } from './harness.mjs';

const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const SIZES = [
  PHONE, DESKTOP, { width: 280, height: 653 }, { width: 1920, height: 1080 },
  { width: 640, height: 400 }, // a desktop's window at 200 % zoom
  { width: 320, height: 256 }, // and one of 1280×1024 at 400 %
];

/** What axe finds in the page as it is. */
async function findings(person) {
  await person.eval(axe);
  return person.eval(async () => {
    const { violations } = await globalThis.axe.run({ resultTypes: ['violations'] });
    return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => html.slice(0, 120) + failureSummary).join('; ')}`);
  });
}

/** What does not fit the window. */
function misfits() {
  const shown = (element) => element.checkVisibility() && element.getClientRects().length > 0;
  const all = [...document.querySelectorAll('button, input, select, video')].filter(shown);
  const wide = [document.documentElement, document.getElementById('main')].filter((one) => one.scrollWidth > one.clientWidth)
    .flatMap((one) => [...one.querySelectorAll('*')].filter(shown).filter((element) => element.getBoundingClientRect().right > innerWidth));
  const outside = all.filter((element) => {
    const box = element.getBoundingClientRect();
    return box.left < -1 || box.right > innerWidth + 1;
  });
  return [...wide, ...outside].map(({ outerHTML }) => outerHTML.slice(0, 100));
}

async function look(person, name) {
  const { page } = person;
  for (const size of SIZES) {
    await page.setViewportSize(size);
    assert.deepEqual(await person.eval(misfits), [], `${name} at ${size.width}×${size.height}`);
  }
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    for (const [size, kind] of [[PHONE, 'phone'], [DESKTOP, 'desktop']]) {
      await page.setViewportSize(size);
      // axe takes long: each size and each scheme once, since neither changes what the other is about.
      const isLooked = (size === PHONE) === (colorScheme === 'light');
      if (isLooked) assert.deepEqual(await findings(person), [], `${name}, ${kind}, ${colorScheme}`);
      await person.shot(`${name}-${kind}-${colorScheme}`);
    }
  }
}

for (const locale of ['en', 'de', 'fr', 'es']) {
  test(`the controls of a call show whole words in one row on phones, in ${locale}`, async () => {
    const server = await serve();
    const bob = await bare(server, 'Bob');
    const anna = await open(server.url, 'Anna', { locale, viewport: PHONE });
    await anna.page.locator('#name').fill('Anna');
    await anna.page.locator('#goOnline').click();
    await anna.page.locator('#callee').fill('Bob');
    await anna.settled();
    await anna.page.locator('#dial button[type=submit]').click();
    await bob.until(() => heard.some(({ signalType }) => signalType === 'offer'));
    for (const width of [390, 320]) {
      await anna.page.setViewportSize({ width, height: 700 });
      const cut = await anna.eval(() => {
        const buttons = [...document.querySelectorAll('#controls button')];
        const rows = new Set(buttons.map((button) => button.getBoundingClientRect().top));
        const words = buttons.filter((button) => {
          const [outer, inner] = [button, button.querySelector('span')].map((one) => one.getBoundingClientRect());
          return inner.left < outer.left || inner.right > outer.right || inner.bottom > outer.bottom || inner.width < 5;
        });
        return [rows.size, ...words.map(({ textContent }) => textContent)];
      });
      await anna.shot(`controls-${locale}-${width}`);
      assert.deepEqual(cut, [1], `${width} px`);
    }
  });
}

test('logging in', async () => {
  const users = await usersFile('Anna');
  const server = await serve();
  await look(await open(server.url), 'login');
  await look(await open(`${server.url}#call=Anna`), 'login-invitation');
  const closed = await serve('--users', users.file);
  const anna = await open(closed.url, 'Anna');
  await anna.field('Your name').fill('Anna');
  await anna.page.getByLabel('Your token').fill('wrong');
  await anna.press('Go online');
  await anna.notice('do not belong together');
  await look(anna, 'login-token');
  await anna.eval(() => localStorage.setItem('name', 'Bob'));
  await anna.page.goto(`${closed.url}?again#user=Anna&token=${users.tokens.Anna}`);
  await anna.button('Go online as Anna').waitFor();
  await look(anna, 'login-other-user');
});

test('at home, called and calling', async () => {
  const server = await serve();
  const anna = await online(server, 'Anna', { init: devices.firstVisit });
  await look(anna, 'home');
  await anna.eval(() => localStorage.setItem('people', ['Grandmother', 'Bob', 'a very long name that somebody chose '.repeat(3).trim()].join('\n')));
  await anna.page.reload();
  await anna.notice('You are online as');
  await anna.call('Nobody');
  await anna.press('Call Nobody');
  await anna.sees('Nobody is not online');
  const bob = await online(server, 'Bob');
  await bob.call('Anna');
  await anna.banner('Bob is calling');
  await look(anna, 'home-ringing');
  await look(bob, 'calling');
  await bob.press('Hang up');
  await anna.sees('Missed call');
  await anna.eval(() => { location.hash = '#call=Cleo'; });
  await anna.sees('Cleo asks you to call');
  await look(anna, 'home-full');
  await anna.press('Check camera and sound');
  await anna.sees('Nobody sees or hears you yet');
  await look(anna, 'preview');
});

test('asked for a permission', async () => {
  const server = await serve();
  const anna = await online(server, 'Anna', { init: devices.prompting });
  await anna.call('Bob');
  await anna.sees('Your browser asks');
  await look(anna, 'asking');
});

test('in a call', async () => {
  const server = await serve();
  const anna = await online(server, 'Anna', { init: devices.screen });
  const [bob, cleo] = await everybody(server, 'Bob', 'Cleo');
  await connect(anna, bob);
  await look(anna, 'call');
  await bob.press('Camera off');
  await bob.press('Mute');
  await anna.page.locator('.tile.unseen', { hasText: 'Bob' }).waitFor();
  await cleo.call('Anna');
  await anna.banner('Cleo is calling and wants to join');
  await look(anna, 'call-knock');
  await anna.press('Let in');
  await anna.sees_pictures_of('Cleo');
  const isOnTop = () => {
    const { x, y, width, height } = document.querySelector('.tile.own').getBoundingClientRect();
    return document.elementFromPoint(x + width / 2, y + height / 2).closest('.tile').matches('.own');
  };
  assert.ok(await anna.eval(isOnTop), 'our own picture is above the others');
  await look(anna, 'call-group');
  await anna.press('Chat');
  await anna.field('Write a message').fill('See https://example.com/a for the menu');
  await anna.page.keyboard.press('Enter');
  await bob.page.getByRole('button', { name: /^Chat/ }).click();
  await bob.field('Write a message').fill('Looks good. Shall we say seven?');
  await bob.page.keyboard.press('Enter');
  await anna.sees('Shall we say seven?');
  await look(anna, 'call-chat');
  await anna.press('Add');
  await look(anna, 'call-add');
  await anna.press('More');
  await look(anna, 'call-settings');
  await anna.press('More');
  await anna.press('Share screen');
  await bob.page.locator('.tile[data-screen]').waitFor();
  await look(bob, 'call-screen');
});

test('no movement for those who want none, and the system’s colours for those who set them', async () => {
  const server = await serve();
  const [anna, bob] = await everybody(server, 'Anna', 'Bob');
  await anna.page.emulateMedia({ reducedMotion: 'reduce', forcedColors: 'active' });
  await bob.call('Anna');
  await anna.banner('Bob is calling');
  assert.equal(await anna.eval(() => getComputedStyle(document.getElementById('banner')).animationName), 'none');
  await anna.shot('home-ringing-forced-colours');
  // By keyboard alone: from the heading on, the first stop answers.
  await anna.settled();
  await anna.page.keyboard.press('Tab');
  assert.equal(await anna.eval(() => document.activeElement.textContent), 'Answer');
  await anna.page.keyboard.press('Enter');
  await anna.sees_pictures_of('Bob');
});
