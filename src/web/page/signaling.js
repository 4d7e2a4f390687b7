/*
 * The connection to the server: one WebSocket, kept open for as long as the user wants to be online. For
 * each name, only one tab of a browser has it.
 *
 * This file connects, logs in, notices a dead connection, and reconnects with exponential backoff. It never
 * touches WebRTC or the page. A message that cannot be sent now is not kept for later: `send` returns false.
 */

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 30_000;

// The server takes up to 2 s to find out whether the present holder of a name is still alive.
const ANSWER_LIMIT_MS = 10_000;

// A page that was loaded again, or took over from another tab, may meet its own old connection.
const NAME_TRIES = 5;
const NAME_PAUSE_MS = 800;

// The page reconnects after half of the lifetime of its TURN credentials, to get new ones. A reconnection
// could disturb a call, so during a call the page only checks again a little later.
const RENEW_MS = 6 * 60 * 60 * 1000;
const RENEW_AGAIN_MS = 5_000;

const MSG_TYPES = { offer: 'sdp', answer: 'sdp', candidate: 'candidate' };

export class Signaling {
  #url; #name = null; #token = ''; #socket = null; #online = false;
  #pause = FIRST_PAUSE_MS; #nameTries = 0; #answerTimer; #retryTimer;
  #tabs = 'BroadcastChannel' in globalThis ? new BroadcastChannel('signal-server') : null;

  /**
   * `on` holds functions: `online(name, iceServers)` after every login; `lost()` when the connection is
   * lost (it reconnects by itself); `refused(reason)` when the server refuses this login (it does not try
   * again); `message(object)` for everything else; `inCall()`; and `busy()`, whether there is a call, or one
   * is being set up.
   */
  constructor(url, on) {
    [this.#url, this.on] = [url, on];
    const check = () => this.#check();
    addEventListener('online', check);
    document.addEventListener('visibilitychange', () => document.hidden || check());
    if (this.#tabs) this.#tabs.onmessage = ({ data }) => this.#heardTab(data);
  }

  get isOnline() {
    return this.#online && this.#socket.readyState === WebSocket.OPEN;
  }

  /** `known`: this browser had the name before, so that "taken" may mean its own old connection. */
  goOnline(name, token, known) {
    this.goOffline();
    this.#name = name;
    this.#token = token;
    this.#nameTries = known ? NAME_TRIES : 0;
    this.#tabs?.postMessage({ take: name });
    this.#connect();
  }

  goOffline() {
    this.#name = null;
    this.#pause = FIRST_PAUSE_MS;
    this.#drop();
  }

  /** Sends one message with any `fields` of our own; false if there is no line to send it on. */
  send(signalType, toUser, fields = {}) {
    if (!this.isOnline) return false;
    this.#write({ msgType: MSG_TYPES[signalType] ?? 'other', signalType, toUser, ...fields });
    return true;
  }

  #write(fields) {
    this.#socket.send(JSON.stringify({ fromUser: this.#name, ...fields }));
  }

  /** Of two tabs with one name, the newer one gets it, unless the older one is in a call. */
  #heardTab({ take, keep }) {
    if (keep !== undefined && keep === this.#name && !this.#online) this.#refuse('other-tab-busy');
    if (take === undefined || take !== this.#name) return;
    if (this.on.inCall()) return this.#tabs.postMessage({ keep: take });
    this.#refuse('other-tab');
  }

  #connect() {
    this.#drop();
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    socket.onopen = () => this.#login();
    socket.onmessage = (event) => this.#received(event.data);
    socket.onclose = () => this.#lost();
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
    this.#write({ msgType: 'other', signalType: 'login', toUser: '', token: this.#token || undefined });
    this.#expectAnswer();
  }

  /**
   * After a change of networks or a sleep, a connection that seems open may be dead. To test it, the page
   * logs in again under its own name: the server answers and changes nothing, so no call is disturbed.
   */
  #check() {
    if (this.#online) return this.isOnline && this.#login();
    if (this.#name !== null) this.#connect();
  }

  #expectAnswer() {
    clearTimeout(this.#answerTimer);
    this.#answerTimer = setTimeout(() => this.#lost(), ANSWER_LIMIT_MS);
  }

  #received(text) {
    const message = JSON.parse(text);
    if (message.signalType === 'login' && 'success' in message) this.#loginAnswered(message);
    else this.on.message(message);
  }

  #loginAnswered({ success, reason, iceServers }) {
    clearTimeout(this.#answerTimer);
    if (this.#online) return; // the line is alive: that was the question
    if (success === '1') {
      this.#online = true;
      this.#pause = FIRST_PAUSE_MS;
      this.#nameTries = NAME_TRIES;
      if (iceServers) this.#renewIn(RENEW_MS);
      this.on.online(this.#name, Array.isArray(iceServers) ? iceServers : []);
    } else if (reason === 'name-taken' && this.#nameTries > 0) {
      this.#nameTries -= 1;
      this.#retryTimer = setTimeout(() => this.#login(), NAME_PAUSE_MS);
    } else {
      this.#refuse(reason);
    }
  }

  #refuse(reason) {
    this.goOffline();
    this.on.refused(reason);
  }

  #renewIn(ms) {
    this.#retryTimer = setTimeout(() => {
      if (this.on.busy()) this.#renewIn(RENEW_AGAIN_MS);
      else this.#connect();
    }, ms);
  }

  #lost() {
    this.#drop();
    this.#retryTimer = setTimeout(() => this.#connect(), this.#nextPause());
    this.on.lost();
  }

  /** Half of the pause is random (jitter), so that not all pages reconnect to a restarted server at once. */
  #nextPause() {
    const pause = this.#pause * (0.5 + Math.random() / 2);
    this.#pause = Math.min(this.#pause * 2, LONGEST_PAUSE_MS);
    return pause;
  }
}
