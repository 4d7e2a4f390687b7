/*
 * One call with one peer: camera and microphone, the RTCPeerConnection, and the offers, answers and
 * candidates that set it up and keep it up.
 *
 * This file never touches the page or the WebSocket. It sends through the function it was given,
 * says `onChange` when there is something new to show, and explains the end of a call by a code
 * (`ending`); words are the page's business.
 */

// Long enough to find the phone, to try every way through a firewall, and to change networks.
const UNANSWERED_MS = 60_000;
const CONNECTING_MS = 30_000;
const RESTART_MS = 20_000;

// After the peer's line to the server is gone, the media has this long to show that it is alive,
// and is looked at twice a second for 10 s. Ticks are counted, not time, so that a laptop waking
// from sleep does not take its own absence for the peer's.
const TICK_MS = 500;
const SILENT_TICKS = 6;
const WATCH_TICKS = 20;

const RESTART_TRIES = 5;
const RESTART_PAUSE_MS = 1_000;

export class Call {
  /** `calling` or `ringing`, then `connecting`, `connected`, `ended`. */
  state;
  ending = null;
  localStream = null;
  remoteStream = new MediaStream();
  /** The connection is there but nothing comes through just now. */
  interrupted = false;

  #me; #configuration; #send; #onChange; // as given to the constructor
  #pc = null;
  #ready;
  #tasks = new Promise((resolve) => { this.#ready = resolve; });
  #candidates = [];
  #remoteSession = null;
  #met = false;
  #restarted = false;
  #restartTries = RESTART_TRIES;
  #limitTimer; #retryTimer; #watchTimer;

  /**
   * `configuration` is the RTCPeerConnection's, and may be a promise. `send(signalType, fields)`
   * sends to this peer, and returns whether there was a line to send on.
   */
  constructor({ me, peer, configuration, send, onChange }) {
    this.peer = peer;
    this.#me = me;
    this.#configuration = configuration;
    this.#send = send;
    this.#onChange = onChange;
  }

  dial() {
    this.state = 'calling';
    this.#enqueue(() => this.#offer());
    return this.#open();
  }

  ring(offer) {
    this.state = 'ringing';
    this.#remoteSession = sessionOf(offer);
    this.#endAfter(UNANSWERED_MS, 'no-answer');
    this.receive(offer);
  }

  answer() {
    clearTimeout(this.#limitTimer);
    this.#become('connecting');
    return this.#open();
  }

  /**
   * Takes a message from the peer. All but a leave waits its turn, and the turns begin when camera
   * and connection are there: so a candidate may come long before the user presses Answer.
   */
  receive(message) {
    this.#met = true;
    switch (message.signalType) {
      case 'offer': return this.#enqueue(() => this.#takeOffer(message));
      case 'answer': return this.#enqueue(() => this.#takeAnswer(message));
      case 'candidate': return this.#enqueue(() => this.#takeCandidate(message));
      case 'leave': return this.#takeLeave(message.reason);
    }
  }

  /** Whether this offer is about this call, and not a new one by a peer who has lost the old. */
  continuedBy(offer) {
    return this.#remoteSession === null || this.#remoteSession === sessionOf(offer);
  }

  /** The server could not deliver our `signalType`. Candidates do not matter: more will come. */
  undelivered(signalType, code) {
    if (signalType !== 'offer' && signalType !== 'answer') return;
    if (this.state !== 'connected') return this.end(code);
    this.#enqueue(() => this.#withdrawOffer());
    if (this.#restartTries === 0) return;
    this.#restartTries -= 1;
    clearTimeout(this.#retryTimer);
    this.#retryTimer = setTimeout(() => this.#restart(), RESTART_PAUSE_MS);
  }

  /** Our line to the server was away. The peer has been told that we left, unless we talk. */
  lineIsBack() {
    this.#restartTries = RESTART_TRIES;
    this.#restart();
  }

  lineIsLost() {
    if (this.state !== 'connected') this.end('line-lost');
  }

  /** Switches our own sound (`audio`) or picture (`video`) on or off. */
  enable(kind, enabled) {
    for (const track of this.localTracks(kind)) track.enabled = enabled;
  }

  localTracks(kind) {
    return (this.localStream?.getTracks() ?? []).filter((track) => track.kind === kind);
  }

  /** Ends the call here, and with a `reason` on the other side too. Camera and light go off. */
  end(ending, reason = null) {
    if (this.state === 'ended') return;
    if (reason !== null) this.#send('leave', { reason });
    for (const timer of [this.#limitTimer, this.#retryTimer, this.#watchTimer]) clearTimeout(timer);
    this.#pc?.close();
    this.#release();
    this.ending = ending;
    this.#become('ended');
  }

  #release() {
    this.localStream?.getTracks().forEach((track) => track.stop());
  }

  #become(state) {
    this.state = state;
    this.#onChange(this);
  }

  #endAfter(ms, ending) {
    clearTimeout(this.#limitTimer);
    this.#limitTimer = setTimeout(() => this.end(ending, 'hangup'), ms);
  }

  /** One at a time and in order. What a peer sent and we cannot use must not break the call. */
  #enqueue(task) {
    const run = () => (this.state === 'ended' ? null : task());
    this.#tasks = this.#tasks.then(run).catch((error) => {
      console.debug('call:', error);
      if (!this.#pc.remoteDescription) this.end('not-understood', 'hangup');
    });
  }

  async #open() {
    try {
      this.localStream = await openMedia();
      this.#configuration = await this.#configuration;
      if (this.state === 'ended') return this.#release();
      this.#connect();
    } catch (error) {
      const ending = error.name === 'NotAllowedError' ? 'media-refused' : 'not-opened';
      return this.end(ending, this.#met ? 'declined' : null);
    }
    if (this.state === 'connecting') this.#endAfter(CONNECTING_MS, 'no-route');
    this.#ready();
    this.#onChange(this);
  }

  #connect() {
    this.#pc?.close();
    const pc = new RTCPeerConnection(this.#configuration);
    this.#pc = pc;
    for (const track of this.localStream.getTracks()) pc.addTrack(track, this.localStream);
    pc.ontrack = ({ track }) => this.remoteStream.addTrack(track);
    pc.onicecandidate = ({ candidate }) => candidate && this.#send('candidate', { candidate });
    pc.onconnectionstatechange = () => this.#connectionChanged();
  }

  #connectionChanged() {
    const connection = this.#pc.connectionState;
    this.interrupted = connection === 'disconnected' || connection === 'failed';
    if (connection === 'connected') {
      clearTimeout(this.#limitTimer);
      this.#restarted = false;
      this.#become('connected');
    } else if (connection === 'failed') {
      this.#failed();
    } else if (this.interrupted) {
      this.#onChange(this);
    }
  }

  /** Another network may have another way through, so one ICE restart is worth trying. */
  #failed() {
    const ending = this.state === 'connected' ? 'lost' : 'no-route';
    if (this.#restarted) return this.end(ending, 'hangup');
    this.#restarted = true;
    this.#endAfter(RESTART_MS, ending);
    this.#restart();
    this.#onChange(this);
  }

  /** A caller without a camera or a microphone still wants to see and hear. */
  async #offer() {
    for (const kind of ['audio', 'video']) {
      if (this.localTracks(kind).length > 0) continue;
      this.#pc.addTransceiver(kind, { direction: 'recvonly' });
    }
    await this.#pc.setLocalDescription();
    this.#send('offer', { sdp: this.#pc.localDescription });
    this.#endAfter(UNANSWERED_MS, 'no-answer');
  }

  /**
   * A new offer for the call we have: it finds a new way through the network, and shows the server
   * that the two of us are still talking. `restart` tells a peer who has given the call up that
   * this is not a new one.
   */
  #restart() {
    clearTimeout(this.#retryTimer);
    this.#enqueue(async () => {
      await this.#withdrawOffer();
      await this.#pc.setLocalDescription(await this.#pc.createOffer({ iceRestart: true }));
      const sent = this.#send('offer', { sdp: this.#pc.localDescription, restart: true });
      if (!sent) await this.#withdrawOffer();
    });
  }

  /** An offer that never reached the peer must not stand in the way of the peer's own. */
  async #withdrawOffer() {
    if (this.#pc.signalingState !== 'have-local-offer') return;
    await this.#pc.setLocalDescription({ type: 'rollback' });
  }

  /**
   * Both may offer at once, by calling each other or by restarting. Then the smaller name's offer
   * stands; the other side takes its own back and answers, as both wanted this call. Before there
   * is anything to lose, a fresh connection is the safer way to take it back: Chromium, made to
   * roll back while it begins to look for candidates, may never find any.
   */
  async #takeOffer(message) {
    const collision = this.#pc.signalingState === 'have-local-offer';
    if (collision && this.#me < this.peer) return;
    if (collision && this.state === 'calling') this.#connect();
    await this.#pc.setRemoteDescription({ type: 'offer', sdp: sdpOf(message) });
    for (const timer of [this.#retryTimer, this.#watchTimer]) clearTimeout(timer);
    await this.#accepted(message);
    await this.#pc.setLocalDescription();
    this.#send('answer', { sdp: this.#pc.localDescription });
  }

  async #takeAnswer(message) {
    if (this.#pc.signalingState !== 'have-local-offer') return;
    await this.#pc.setRemoteDescription({ type: 'answer', sdp: sdpOf(message) });
    await this.#accepted(message);
  }

  async #accepted(message) {
    this.#remoteSession = sessionOf(message);
    if (this.state === 'calling') {
      this.#endAfter(CONNECTING_MS, 'no-route');
      this.#become('connecting');
    }
    for (const candidate of this.#candidates.splice(0)) await this.#addCandidate(candidate);
  }

  /** No candidate, or an empty one, means that there are no more: nothing to do. */
  async #takeCandidate({ candidate }) {
    if (typeof candidate === 'string') candidate = { candidate };
    if (!candidate?.candidate) return;
    if (this.#pc.remoteDescription) await this.#addCandidate(candidate);
    else this.#candidates.push(candidate);
  }

  /** A candidate of an offer that was withdrawn fits nothing any more, and is no fault. */
  async #addCandidate({ candidate, sdpMid, sdpMLineIndex, usernameFragment }) {
    if (sdpMid == null && sdpMLineIndex == null) sdpMLineIndex = 0;
    try {
      await this.#pc.addIceCandidate({ candidate, sdpMid, sdpMLineIndex, usernameFragment });
    } catch (error) {
      console.debug('call:', error);
    }
  }

  /**
   * With a reason, the peer has hung up. Without, the server has lost the peer's line: whether the
   * peer is gone as well, or merely reconnecting, only the media can tell.
   */
  #takeLeave(reason) {
    if (this.state === 'connected' && reason === undefined) return this.#watch();
    if (reason === 'busy' || reason === 'declined') this.end(reason);
    else if (reason === undefined) this.end('gone');
    else this.end(this.state === 'ringing' ? 'cancelled' : 'hung-up');
  }

  #watch() {
    this.#enqueue(() => this.#withdrawOffer()); // the peer will have to come to us
    let [ticks, silent, before] = [0, 0, null];
    clearInterval(this.#watchTimer);
    this.#watchTimer = setInterval(async () => {
      const now = await signsOfLife(this.#pc);
      silent = now === before ? silent + 1 : 0;
      [before, ticks] = [now, ticks + 1];
      if (silent >= SILENT_TICKS) this.end('lost', 'hangup');
      else if (ticks >= WATCH_TICKS && silent === 0) clearInterval(this.#watchTimer);
    }, TICK_MS);
  }
}

/** Camera and microphone, or what there is of them; a refusal by the user is an error. */
async function openMedia() {
  const wishes = [{ audio: true, video: true }, { audio: true }, { video: true }];
  for (const wish of wishes) {
    try {
      return await navigator.mediaDevices.getUserMedia(wish);
    } catch (error) {
      const missing = ['NotFoundError', 'NotReadableError', 'OverconstrainedError', 'AbortError'];
      if (!missing.includes(error.name)) throw error;
    }
  }
  return new MediaStream();
}

/** A number that grows while anything arrives, whichever of its counters the browser keeps. */
async function signsOfLife(pc) {
  let sum = 0;
  for (const report of (await pc.getStats()).values()) {
    sum += (report.bytesReceived ?? 0) + (report.responsesReceived ?? 0);
  }
  return sum;
}

/** The SDP in a message; other clients may send it bare. */
export function sdpOf(message) {
  const sdp = message.sdp?.sdp ?? message.sdp;
  return typeof sdp === 'string' ? sdp : '';
}

/** The session id of the `o=` line stays the same for the life of one RTCPeerConnection. */
function sessionOf(message) {
  return sdpOf(message).match(/^o=\S+ (\d+) /m)?.[1] ?? '';
}
