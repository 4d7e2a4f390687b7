/*
 * Links to this page, which may name a person to call and log a user in. And waiting for a person who was
 * not online when we called.
 */

import { dial } from './call.js';
import { goOnline } from './online.js';
import * as people from './people.js';
import { draw, say, send, state } from './state.js';
import { page } from './view.js';

/**
 * A link may name the person to call, which still needs a press. It may also hold a user name and a token,
 * to log in. The token is removed from the address bar, where others could see it. If the link is for
 * another user than this device's own, the login needs a press as well.
 */
export function followLink() {
  const link = people.linkFields();
  const [user, token, peer] = ['user', 'token', 'call'].map((key) => people.cleanName(link.get(key) ?? ''));
  if (token) {
    link.delete('user');
    link.delete('token');
    history.replaceState(null, '', location.pathname + location.search + (link.size ? `#${link}` : ''));
  }
  if (peer && peer !== state.me && peer.length <= people.MAX_NAME) state.invitation = peer;
  if (!user || !token || (user === state.me && state.line === 'online')) return draw();
  if (state.me === null && (state.name === '' || state.name === user)) return goOnline(user, token, true);
  state.loginLink = { user, token };
  draw();
}

export function followInvitation() {
  const { loginLink, invitation } = state;
  if (loginLink) goOnline(loginLink.user, loginLink.token, true);
  else dial(invitation);
}

export function dropInvitation() {
  if (state.loginLink) state.loginLink = null;
  else state.invitation = null;
  draw();
}

/**
 * Checks whether an awaited person is online, without ringing. Every page ignores a candidate that belongs
 * to no call, but the server reports a candidate that it cannot deliver.
 */
export function lookForAbsent() {
  const { absent } = state;
  if (!absent?.isAwaited || state.group || state.asking) return;
  if (absent.isProbed) dial(absent.name); // the server has not said so since the last look
  else absent.isProbed = send('candidate', absent.name, { candidate: null });
}

export async function copyLink() {
  page.link.select();
  try {
    await navigator.clipboard.writeText(page.link.value);
    say('sayLinkCopied');
  } catch {
    say('saySelected');
  }
}
