/*
 * Links: to this page, which may name whom to call and who we are; and whether somebody whom we called in
 * vain is there now.
 */

import { dial } from './call.js';
import { goOnline } from './online.js';
import * as people from './people.js';
import { draw, say, send, state } from './state.js';
import { page } from './view.js';

/**
 * A link may name the person to call; a call waits for a press in any case. It may also say who we are and
 * prove it. The proof must not stay where others can see it, and another user than this device's own goes
 * online only by a press.
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
 * Looks whether somebody who is awaited is there, without ringing: a candidate that belongs to no call is
 * ignored by everybody, but the server says when it cannot be delivered.
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
