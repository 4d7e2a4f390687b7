/*
 * One RTCPeerConnection to one person: negotiation, candidates, ICE restarts, and the data channel.
 *
 * There are always two transceivers that send and receive, and one negotiated data channel. So mute,
 * camera off, another device and a shared screen need only `replaceTrack`, and only an ICE restart
 * renegotiates. A client written for the original server has no channel and no group id; our answer to it
 * has only what it offered.
 */

import { Limit } from './people.js';

const TICK_MS = 1_000;
const SILENT_TICKS = 4; // without a byte, before a watched person counts as gone
const WATCH_TICKS = 12; // with bytes, before the watch ends
const RESTART_MS = 4_000; // between two tries to find a new way through the network
const RESTART_TRIES = 5;
const POOR_TICKS = 3; // more bad ones than good ones, before the connection is called poor
const POOR_LOSS = 0.08;
const POOR_ROUND_TRIP_S = 0.8;

// What a peer may make us keep or do. The server bounds a message, but not to a size that is useful here.
const MAX_SDP = 100_000;
const MAX_CANDIDATE = 4_000; // as JSON
export const MAX_CANDIDATES = 100; // for one description
const MAX_WAITING = 200; // messages, while the browser works on earlier ones
const MAX_CHANNEL_MESSAGE = 16_000;
const CHANNEL_MESSAGES_PER_SECOND = 50;
const RESTARTS_ASKED = [5, 10_000]; // so many in so many ms

// From this many people on, each sender is capped, or six cameras would be too much for most homes.
const CROWD = 4;
const CROWD_BITRATE = 500_000;
const SCREEN_BITRATE = 1_500_000;

export class Peer {
  connected = false;
  /** It was connected, and nothing comes through just now. */
  interrupted = false;
  poor = false;
  /** An answer or an offer came from this person. */
  met = false;
  remote = new MediaStream();
  /** What this person says of themselves on the data channel, checked. */
  far = { members: [], muted: false, camera: true, screen: false };
  /** The fields of the offer with which we called; null if this person called us. */
  dialed = null;
  /**
   * Used by group.js. `old`: a client written for the original server, without group and channel.
   * `returnBy`: how long we redial a person who may reconnect to the server. `timer`: the time limit.
   */
  old = false; returnBy = 0; timer;

  #pc; #send; #on; #media; #channel = null; #crowd = 2;
  #tasks = Promise.resolve(); #candidates = []; #taken = 0; #restarts = 0; #restartTimer;
  #asked = new Limit(...RESTARTS_ASKED); #waiting = 0;
  #heard = new Limit(CHANNEL_MESSAGES_PER_SECOND, 1_000);
  #ticker; #silent = 0; #watch = 0; #badTicks = 0; #last = { received: 0, packets: 0, lost: 0 };

  /**
   * `media.tracks` are the tracks to send. `send(signalType, fields)` sends to this person through the
   * server. `on` holds functions: `change(peer)`, `connected(peer)` for the first time, `lost(peer)`,
   * `open(peer)` for the data channel, and `heard(peer, message)` for what came on it, not checked yet.
   */
  constructor({ name, configuration, media, send, on }) {
    this.name = name;
    [this.#media, this.#send, this.#on] = [media, send, on];
    const pc = this.#pc = new RTCPeerConnection(configuration);
    pc.onicecandidate = ({ candidate }) => candidate && send('candidate', { candidate });
    pc.ontrack = ({ track }) => { this.remote.addTrack(track); on.change(this); };
    pc.onconnectionstatechange = () => this.#connectionChanged();
  }

  dial(fields) {
    this.dialed = fields;
    for (const kind of ['audio', 'video']) this.#pc.addTransceiver(kind, { direction: 'sendrecv' });
    this.#openChannel();
    this.#offer(fields);
  }

  /** Takes an offer, an answer or a candidate. */
  receive(message) {
    if (this.#waiting >= MAX_WAITING) return;
    this.#waiting += 1;
    this.#queue(() => this.#take(message)).then(() => { this.#waiting -= 1; });
  }

  /** Whether this offer belongs to the connection we have, and not to a new one of the same person. */
  continuedBy(message) {
    const remote = this.#pc.remoteDescription;
    return remote === null || sessionOf(remote.sdp)[0] === sessionOf(sdpOf(message))[0];
  }

  /** Whether this answer is to the offer that we made last. */
  isAnsweredBy({ answers }) {
    const local = this.#pc.localDescription;
    return local !== null && answers === sessionOf(local.sdp).join(' ');
  }

  /** Sends the tracks that are in use now, for a call of so many people. */
  useMedia(crowd) {
    this.#crowd = crowd;
    this.#queue(() => this.#useMedia());
  }

  /** Says something on the data channel, and whether that is open. */
  tell(message) {
    if (this.#channel?.readyState !== 'open') return false;
    this.#channel.send(JSON.stringify(message));
    return true;
  }

  /**
   * An ICE restart: a new offer for the same connection, which also makes us partners at the server again.
   * Only the side that dialed makes it; the other side asks for it. Otherwise two offers could cross, and if
   * the side that did not dial rolls its own back, its received picture freezes in Chromium.
   */
  restart() {
    if (!this.dialed) return this.#send('candidate', { candidate: null, restart: true });
    this.#pc.restartIce();
    this.#offer({ restart: true });
  }

  /** The server or the data channel lost this person. Only what arrives shows whether they are gone as well. */
  watch() {
    [this.#watch, this.#silent] = [WATCH_TICKS, 0];
  }

  /** `bye` tells the end of the call on the data channel, for a peer who is not connected to the server. */
  close(bye = false) {
    if (bye) this.tell({ bye: true });
    clearInterval(this.#ticker);
    clearTimeout(this.#restartTimer);
    const pc = this.#pc;
    pc.onconnectionstatechange = pc.ontrack = pc.onicecandidate = null;
    if (this.#channel) this.#channel.onmessage = this.#channel.onclose = null;
    pc.close();
  }

  /** One at a time and in order. What a peer sent and we cannot use must not break the call. */
  #queue(task) {
    const run = () => (this.#pc.signalingState === 'closed' ? null : task());
    this.#tasks = this.#tasks.then(run).catch((error) => {
      console.debug('peer:', error);
      const { signalingState, remoteDescription } = this.#pc;
      if (signalingState !== 'closed' && this.met && !remoteDescription) this.#on.lost(this);
    });
    return this.#tasks;
  }

  #offer(fields) {
    this.#queue(async () => {
      await this.#useMedia();
      await this.#pc.setLocalDescription();
      this.#send('offer', { sdp: this.#pc.localDescription, ...fields });
    });
  }

  #openChannel() {
    const channel = this.#channel = this.#pc.createDataChannel('page', { negotiated: true, id: 0 });
    channel.onopen = () => this.#on.open(this);
    channel.onmessage = ({ data }) => {
      if (typeof data !== 'string' || data.length > MAX_CHANNEL_MESSAGE || !this.#heard.take()) return;
      try {
        this.#on.heard(this, JSON.parse(data) ?? {});
      } catch (error) {
        console.debug('peer:', error);
      }
    };
    // The other side closed it, perhaps because its page is gone. The server's `leave` may come later.
    channel.onclose = () => this.watch();
  }

  async #useMedia() {
    for (const { sender, receiver } of this.#pc.getTransceivers()) {
      const track = this.#media.tracks[receiver.track.kind];
      if (sender.track !== track) await sender.replaceTrack(track);
    }
    await this.#limit();
  }

  async #limit() {
    const video = this.#pc.getTransceivers().find(({ receiver }) => receiver.track.kind === 'video');
    const parameters = video?.sender.getParameters();
    const [encoding] = parameters?.encodings ?? [];
    if (!encoding || !this.#pc.currentRemoteDescription) return;
    const { screen } = this.#media;
    const isCapped = screen === null && this.#crowd >= CROWD;
    encoding.scaleResolutionDownBy = isCapped ? 2 : 1;
    encoding.maxBitrate = isCapped ? CROWD_BITRATE : undefined; // which is no bound
    if (screen) encoding.maxBitrate = SCREEN_BITRATE;
    await video.sender.setParameters(parameters).catch((error) => console.debug('peer:', error));
  }

  async #take(message) {
    if (message.signalType === 'candidate') {
      if (message.restart === true && this.dialed && this.connected && this.#asked.take()) this.restart();
      return this.#takeCandidate(message.candidate);
    }
    this.met = true;
    if (message.signalType === 'answer') return this.#takeAnswer(message);
    if (this.#pc.signalingState !== 'stable') return; // we dialed, and wait for the answer to our own offer
    const sdp = sdpOf(message);
    if (!this.#channel && /^m=application /m.test(sdp)) this.#openChannel();
    await this.#pc.setRemoteDescription({ type: 'offer', sdp });
    for (const transceiver of this.#pc.getTransceivers()) transceiver.direction = 'sendrecv';
    await this.#useMedia();
    await this.#pc.setLocalDescription();
    this.#send('answer', { sdp: this.#pc.localDescription, answers: sessionOf(sdp).join(' ') });
    await this.#accepted();
  }

  /** `answers` names the offer: a late answer to an earlier one is not taken for this one's. */
  async #takeAnswer(message) {
    if (this.#pc.signalingState !== 'have-local-offer') return;
    if (message.answers !== undefined && !this.isAnsweredBy(message)) return;
    await this.#pc.setRemoteDescription({ type: 'answer', sdp: sdpOf(message) });
    await this.#accepted();
  }

  async #accepted() {
    this.#taken = 0;
    this.#on.change(this);
    for (const candidate of this.#candidates.splice(0)) await this.#addCandidate(candidate);
    await this.#limit();
  }

  /** No candidate, or an empty one, means that there are no more: nothing to do. */
  async #takeCandidate(candidate) {
    if (typeof candidate === 'string') candidate = { candidate };
    if (!candidate?.candidate || this.#taken >= MAX_CANDIDATES) return;
    this.#taken += 1;
    if (this.#pc.remoteDescription) await this.#addCandidate(candidate);
    else this.#candidates.push(candidate);
  }

  /** A candidate of an earlier offer fits nothing any more, and is no fault. */
  async #addCandidate({ candidate, sdpMid, sdpMLineIndex, usernameFragment }) {
    if (sdpMid == null && sdpMLineIndex == null) sdpMLineIndex = 0;
    try {
      await this.#pc.addIceCandidate({ candidate, sdpMid, sdpMLineIndex, usernameFragment });
    } catch (error) {
      console.debug('peer:', error);
    }
  }

  #connectionChanged() {
    const state = this.#pc.connectionState;
    this.interrupted = this.connected && (state === 'disconnected' || state === 'failed');
    if (state === 'connected') {
      clearTimeout(this.#restartTimer);
      this.#restarts = 0;
      this.#ticker ??= setInterval(() => this.#tick(), TICK_MS);
      if (!this.connected) {
        this.connected = true;
        this.#on.connected(this);
      }
    } else if (state === 'failed') {
      this.#findAnotherWay();
    }
    this.#on.change(this);
  }

  /** Restarts ICE several times, because the connection to the server may come back only later. */
  #findAnotherWay() {
    if (this.#restarts === RESTART_TRIES) return this.#on.lost(this);
    this.#restarts += 1;
    this.restart();
    clearTimeout(this.#restartTimer);
    this.#restartTimer = setTimeout(() => this.#findAnotherWay(), RESTART_MS);
  }

  /** Counts ticks, not time: a laptop that wakes must not take its own sleep for silence of the peer. */
  async #tick() {
    const [former, now] = [this.#last, summary(await this.#pc.getStats())];
    this.#last = now;
    this.#silent = now.received === former.received ? this.#silent + 1 : 0;
    if (this.#watch > 0) {
      if (this.#silent >= SILENT_TICKS) return this.#on.lost(this);
      if (this.#silent === 0) this.#watch -= 1;
      this.tell({}); // SCTP acknowledges it, which is a byte. Without media, Firefox sends little else.
    }
    const [packets, lost] = [now.packets - former.packets, now.lost - former.lost];
    const isBad = now.roundTrip > POOR_ROUND_TRIP_S || lost > POOR_LOSS * (packets + lost);
    this.#badTicks = Math.max(0, Math.min(2 * POOR_TICKS, this.#badTicks + (isBad ? 1 : -1)));
    const poor = this.#badTicks >= (this.poor ? 1 : POOR_TICKS);
    if (poor === this.poor) return;
    this.poor = poor;
    this.#on.change(this);
  }
}

/** What the browser counted: anything that arrived, the round trip, and packets that came and did not. */
function summary(stats) {
  const sum = { received: 0, roundTrip: 0, packets: 0, lost: 0 };
  for (const report of stats.values()) {
    sum.received += (report.bytesReceived ?? 0) + (report.responsesReceived ?? 0);
    if (report.nominated) sum.roundTrip = report.currentRoundTripTime ?? 0;
    if (report.type !== 'inbound-rtp') continue;
    sum.packets += report.packetsReceived ?? 0;
    sum.lost += report.packetsLost ?? 0;
  }
  return sum;
}

/** Whether the SDP or the candidate in a message is larger than any that a browser makes. */
export function isTooLarge(message) {
  return sdpOf(message).length > MAX_SDP || JSON.stringify(message.candidate ?? '').length > MAX_CANDIDATE;
}

/** The SDP in a message; other clients may send it bare. */
export function sdpOf(message) {
  const sdp = message.sdp?.sdp ?? message.sdp;
  return typeof sdp === 'string' ? sdp : '';
}

/** The `o=` line's session, the same for the life of a connection, and its version, new in each offer. */
function sessionOf(sdp) {
  return sdp.match(/^o=\S+ (\d+) (\d+) /m)?.slice(1) ?? ['', ''];
}
