/*
 * Our own camera, microphone and screen: opened with fallbacks, chosen, switched, and noticed when they end.
 *
 * The tracks in use are `audio`, `video` (the camera) and `screen`, each a track or null. A camera that is
 * off is closed, so that its light goes off; a muted microphone stays open and sends silence.
 */

const NOT_THERE = ['NotFoundError', 'NotReadableError', 'OverconstrainedError', 'AbortError'];
const PICTURE = { width: { ideal: 1280 }, height: { ideal: 720 } };

export class Media {
  audio = null; video = null; screen = null;
  muted = false;
  /** Why there is no microphone or camera: '', 'refused' or 'missing'. */
  problems = { audio: '', video: '' };
  /** The user's choices. They outlive a call, not the page. */
  chosen = { audio: '', video: '', output: '' };
  wantsCamera = true;
  /** Our own picture, as the others see it. */
  stream = new MediaStream();
  #facing = 'user'; #onChange; #onEnded; #opening = 0; #context = null; #meter = null;

  /**
   * `onChange()` when tracks have changed; `onEnded(kind, isReplaced)` when a device or a shared screen has
   * ended, and whether another device has taken its place.
   */
  constructor(onChange, onEnded) {
    this.#onChange = onChange;
    this.#onEnded = onEnded;
    navigator.mediaDevices?.addEventListener('devicechange', () => this.#devicesChanged());
  }

  /** What the others are sent. */
  get tracks() {
    return { audio: this.audio, video: this.screen ?? this.video };
  }

  /** What the others are told. */
  get own() {
    return { muted: this.muted || !this.audio, camera: this.video !== null, screen: this.screen !== null };
  }

  /**
   * Opens microphone and camera, or the one that exists and is allowed. False if none is open because the
   * user refused, or if `close` was called meanwhile; then nothing stays open.
   */
  async open(withCamera) {
    this.close();
    const opening = this.#opening;
    this.muted = false;
    this.wantsCamera = withCamera;
    this.problems = { audio: '', video: '' };
    const wishes = withCamera ? [['audio', 'video'], ['audio'], ['video']] : [['audio']];
    for (const kinds of wishes) {
      const tracks = await this.#get(kinds);
      if (opening !== this.#opening) {
        for (const track of tracks) track.stop();
        return false;
      }
      for (const track of tracks) this.#put(track.kind, track);
      if (tracks.length > 0) break;
    }
    this.#onChange();
    // Without any device, the user can still watch and listen. A user who refused does not want the call.
    return Boolean(this.audio ?? this.video) || !Object.values(this.problems).includes('refused');
  }

  /** Ends all tracks, and whatever is still being opened. */
  close() {
    this.#opening += 1;
    for (const kind of ['audio', 'video', 'screen']) this.#put(kind, null);
    this.problems = { audio: '', video: '' };
  }

  mute(muted) {
    this.muted = muted;
    if (this.audio) this.audio.enabled = !muted;
    this.#onChange();
  }

  async setCamera(on) {
    this.wantsCamera = on;
    if (on) return this.#reopen('video');
    this.#put('video', null);
    this.#onChange();
  }

  async choose(kind, deviceId) {
    this.chosen[kind] = deviceId;
    if (kind !== 'output') await this.#reopen(kind);
  }

  /** Where the camera of a phone looks: 'user' or 'environment'. Others do not say. */
  get facing() {
    return this.video?.getSettings().facingMode;
  }

  /** The other camera of a phone. */
  async flip() {
    this.#facing = this.facing === 'user' ? 'environment' : 'user';
    await this.choose('video', '');
  }

  /** Our own picture is shown as in a mirror, unless the camera looks away from us. */
  get isMirrored() {
    return !this.screen && this.facing !== 'environment';
  }

  /** Asks the user for a screen and shares it. False if the browser has none; to choose none is no error. */
  async share() {
    try {
      const stream = await navigator.mediaDevices.getDisplayMedia({ video: true });
      const [track] = stream.getVideoTracks();
      track.contentHint = 'detail';
      this.#put('screen', track);
      this.#onChange();
      return true;
    } catch (error) {
      console.debug('screen:', error);
      return error.name === 'NotAllowedError';
    }
  }

  stopSharing() {
    this.#put('screen', null);
    this.#onChange();
  }

  async devices() {
    const all = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
    const of = (kind) => all.filter((device) => device.kind === kind && device.deviceId !== '');
    return { microphones: of('audioinput'), cameras: of('videoinput'), speakers: of('audiooutput') };
  }

  /** How loud the microphone is just now, from 0 to 1. */
  level() {
    if (!this.audio || this.muted) return 0;
    if (this.#meter?.track !== this.audio) {
      this.#context ??= new AudioContext();
      const analyser = this.#context.createAnalyser();
      this.#context.createMediaStreamSource(new MediaStream([this.audio])).connect(analyser);
      this.#meter = { track: this.audio, analyser, samples: new Float32Array(analyser.fftSize) };
    }
    this.#meter.analyser.getFloatTimeDomainData(this.#meter.samples);
    return Math.min(1, 3 * Math.max(...this.#meter.samples.map(Math.abs)));
  }

  async #get(kinds) {
    const wish = {};
    const device = (kind) => (this.chosen[kind] ? { deviceId: { exact: this.chosen[kind] } } : {});
    if (kinds.includes('audio')) wish.audio = { ...device('audio') };
    if (kinds.includes('video')) {
      wish.video = { ...PICTURE, ...device('video') };
      if (!this.chosen.video) wish.video.facingMode = { ideal: this.#facing };
    }
    try {
      const stream = await navigator.mediaDevices.getUserMedia(wish);
      return stream.getTracks();
    } catch (error) {
      const isMissing = NOT_THERE.includes(error.name);
      const chosen = kinds.filter((kind) => this.chosen[kind]);
      for (const kind of kinds) this.problems[kind] = isMissing ? 'missing' : 'refused';
      if (!isMissing || chosen.length === 0) return [];
      for (const kind of chosen) this.chosen[kind] = ''; // it was unplugged since
      return this.#get(kinds);
    }
  }

  /** Another device of the kind. A phone opens its second camera only when the first one is closed. */
  async #reopen(kind) {
    const opening = this.#opening;
    this[kind]?.stop();
    const [track = null] = await this.#get([kind]);
    const isWanted = opening === this.#opening && (kind === 'audio' || this.wantsCamera);
    if (!isWanted) return track?.stop();
    this.#put(kind, track);
    this.#onChange();
  }

  #put(kind, track) {
    const former = this[kind];
    if (former) former.onended = null;
    former?.stop();
    this[kind] = track;
    if (track) {
      this.problems[kind] = '';
      track.onended = () => this.#ended(kind);
    }
    if (track && kind === 'audio') track.enabled = !this.muted;
    const picture = this.screen ?? this.video;
    for (const shown of this.stream.getTracks()) this.stream.removeTrack(shown);
    if (picture) this.stream.addTrack(picture);
  }

  /** Unplugged, or the lid was closed: another device of the kind takes its place, if there is one. */
  async #ended(kind) {
    this.#put(kind, null);
    this.#onChange();
    if (kind !== 'screen') {
      this.chosen[kind] = '';
      await this.#reopen(kind);
    }
    this.#onEnded(kind, this[kind] !== null);
  }

  async #devicesChanged() {
    if (!this.audio && this.problems.audio === 'missing') await this.#reopen('audio');
    this.#onChange();
  }
}
