/*
 * The line to the server: one WebSocket, kept up for as long as the user wants to be online.
 *
 * This file owns connecting, logging in, noticing that the line is dead, and trying again with
 * growing pauses. It never touches WebRTC or the page: what arrives is handed on as it came, and a
 * message that cannot be sent now is not kept for later; its sender is told so by `false`.
 */

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 30_000;

// The server takes up to 2 s to find out whether the present holder of a name is still alive.
const ANSWER_LIMIT_MS = 10_000;

// After a reconnect, the server may still take our own old connection for a living one.
const NAME_TRIES = 6;

// Half of what the TURN credentials in a login reply are good for.
const RENEW_MS = 6 * 60 * 60 * 1000;

const POLICY_VIOLATION = 1008;

const MSG_TYPES = { offer: 'sdp', answer: 'sdp', candidate: 'candidate' };

export class Signaling {
  #url;
  #on;
  #name = null;
  #token = '';
  #socket = null;
  #online = false;
  #pause = FIRST_PAUSE_MS;
  #nameTries = 0;
  #answerTimer;
  #retryTimer;

  /**
   * `on` holds four functions: `online(name, iceServers)` after every login, `lost(reason)`
   * whenever the line goes away (a new attempt is then under way; the reason is '' unless the
   * server sent us away), `refused(reason)` when the server does not want this login (no new
   * attempt), and `message(object)` for everything else.
   */
  constructor(url, on) {
    this.#url = url;
    this.#on = on;
    // A line that seems open may belong to the network we have left, so it is made anew.
    addEventListener('online', () => this.#name !== null && this.#connect());
  }

  get isOnline() {
    return this.#online;
  }

  goOnline(name, token) {
    this.goOffline();
    this.#name = name;
    this.#token = token;
    this.#connect();
  }

  goOffline() {
    this.#name = null;
    this.#nameTries = 0;
    this.#pause = FIRST_PAUSE_MS;
    this.#drop();
  }

  /** Sends one message, with any `fields` of our own; false if there is no line to send it on. */
  send(signalType, toUser, fields = {}) {
    if (!this.#online || this.#socket.readyState !== WebSocket.OPEN) return false;
    this.#write(signalType, toUser, fields);
    return true;
  }

  #write(signalType, toUser, fields) {
    const msgType = MSG_TYPES[signalType] ?? 'other';
    const message = { msgType, signalType, fromUser: this.#name, toUser, ...fields };
    this.#socket.send(JSON.stringify(message));
  }

  #connect() {
    this.#drop();
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    socket.onopen = () => this.#login();
    socket.onmessage = (event) => this.#received(event.data);
    socket.onclose = ({ code, reason }) => this.#lost(code === POLICY_VIOLATION ? reason : '');
    this.#expectAnswer();
  }

  /** Forgets the socket at once: the closing handshake of a dead one would take its time. */
  #drop() {
    clearTimeout(this.#answerTimer);
    clearTimeout(this.#retryTimer);
    this.#online = false;
    if (!this.#socket) return;
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
    this.#socket = null;
  }

  #login() {
    this.#write('login', '', this.#token ? { token: this.#token } : {});
    this.#expectAnswer();
  }

  #expectAnswer() {
    clearTimeout(this.#answerTimer);
    this.#answerTimer = setTimeout(() => this.#lost(''), ANSWER_LIMIT_MS);
  }

  #received(text) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return;
    }
    if (message?.signalType === 'login' && 'success' in message) this.#loginAnswered(message);
    else if (message !== null) this.#on.message(message);
  }

  #loginAnswered({ success, reason, iceServers }) {
    clearTimeout(this.#answerTimer);
    if (success === '1') {
      this.#online = true;
      this.#pause = FIRST_PAUSE_MS;
      this.#nameTries = NAME_TRIES;
      if (iceServers) this.#retryTimer = setTimeout(() => this.#connect(), RENEW_MS);
      this.#on.online(this.#name, iceServers ?? []);
    } else if (reason === 'name-taken' && this.#nameTries > 0) {
      this.#nameTries -= 1;
      this.#retryTimer = setTimeout(() => this.#login(), this.#nextPause());
    } else {
      this.goOffline();
      this.#on.refused(reason);
    }
  }

  #lost(reason) {
    this.#drop();
    this.#retryTimer = setTimeout(() => this.#connect(), this.#nextPause());
    this.#on.lost(reason);
  }

  /** Half of the pause is left to chance, so that after a restart not everybody knocks at once. */
  #nextPause() {
    const pause = this.#pause * (0.5 + Math.random() / 2);
    this.#pause = Math.min(this.#pause * 2, LONGEST_PAUSE_MS);
    return pause;
  }
}
