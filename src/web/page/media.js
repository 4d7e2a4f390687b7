/*
 * Our own camera, microphone and screen: opened with fallbacks, chosen, switched, and noticed when they end.
 *
 * The tracks in use are `audio`, `camera` and `screen`, each a track or null. A camera that is off is
 * closed, so that its light goes off; a muted microphone stays open and sends silence.
 */

const NOT_THERE = ['NotFoundError', 'NotReadableError', 'OverconstrainedError', 'AbortError'];
const PICTURE = { width: { ideal: 1280 }, height: { ideal: 720 } };

export class Media {
  audio = null; camera = null; screen = null;
  muted = false;
  /** Why there is no microphone or camera: '', 'refused' or 'missing'. */
  problems = { audio: '', video: '' };
  /** The user's choices. They outlive a call, not the page. */
  chosen = { audio: '', video: '', output: '' };
  wantsCamera = true;
  stream = new MediaStream(); // for our own picture
  #facing = 'user'; #onChange; #onEnded; #opening = 0; #context = null; #meter = null;

  /** `onChange()` when tracks have changed; `onEnded(kind)` when a device or a shared screen has gone. */
  constructor(onChange, onEnded) {
    this.#onChange = onChange;
    this.#onEnded = onEnded;
    navigator.mediaDevices?.addEventListener('devicechange', () => this.#devicesChanged());
  }

  get isOpen() {
    return this.audio !== null || this.camera !== null;
  }

  /** What a peer is sent. */
  get tracks() {
    return { audio: this.audio, video: this.screen ?? this.camera, screen: this.screen !== null };
  }

  /** What the others are told. */
  get own() {
    return { muted: this.muted || !this.audio, camera: this.camera !== null, screen: this.screen !== null };
  }

  get canShareScreen() {
    return Boolean(navigator.mediaDevices?.getDisplayMedia);
  }

  /**
   * Opens microphone and camera, or what there is of them and is allowed. False if the user refused all
   * there is, or if `close` was called meanwhile; then nothing stays open.
   */
  async open(withCamera) {
    this.#stop();
    const opening = this.#opening;
    this.muted = false;
    this.wantsCamera = withCamera;
    this.problems = { audio: '', video: '' };
    const wishes = withCamera ? [['audio', 'video'], ['audio'], ['video']] : [['audio']];
    let stream = null;
    for (const kinds of wishes) {
      stream = await this.#get(kinds);
      if (stream || opening !== this.#opening) break;
    }
    if (opening !== this.#opening) {
      stream?.getTracks().forEach((track) => track.stop());
      return false;
    }
    for (const track of stream?.getTracks() ?? []) this.#take(track);
    if (this.audio) this.problems.audio = '';
    if (this.camera) this.problems.video = '';
    this.#onChange();
    // Nothing at all to send is no reason not to watch and listen; a refusal is the user's word.
    return this.isOpen || !Object.values(this.problems).includes('refused');
  }

  close() {
    this.#stop();
    this.#onChange();
  }

  mute(muted) {
    this.muted = muted;
    if (this.audio) this.audio.enabled = !muted;
    this.#onChange();
  }

  async setCamera(on) {
    this.wantsCamera = on;
    if (on) await this.#reopen('video');
    else this.#put('camera', null);
  }

  async choose(kind, deviceId) {
    this.chosen[kind] = deviceId;
    if (kind !== 'output') await this.#reopen(kind);
    this.#onChange();
  }

  /** The other camera of a phone: by its facing, or else the next one in the list. */
  async flip() {
    const { cameras } = await this.devices();
    const facing = this.camera?.getSettings().facingMode;
    if (facing) {
      this.#facing = facing === 'user' ? 'environment' : 'user';
      this.chosen.video = '';
    } else {
      const now = cameras.findIndex(({ deviceId }) => deviceId === this.camera?.getSettings().deviceId);
      this.chosen.video = cameras[(now + 1) % cameras.length]?.deviceId ?? '';
    }
    await this.#reopen('video');
  }

  /** Our own picture is shown as in a mirror, unless the camera looks away from us. */
  get isMirrored() {
    return this.camera?.getSettings().facingMode !== 'environment';
  }

  async share() {
    try {
      const stream = await navigator.mediaDevices.getDisplayMedia({ video: true });
      const [track] = stream.getVideoTracks();
      track.contentHint = 'detail';
      this.#take(track, 'screen');
      this.#onChange();
    } catch (error) {
      console.debug('screen:', error); // the user chose none
    }
  }

  stopSharing() {
    this.#put('screen', null);
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
      return await navigator.mediaDevices.getUserMedia(wish);
    } catch (error) {
      const chosen = kinds.filter((kind) => this.chosen[kind]);
      if (chosen.length > 0 && NOT_THERE.includes(error.name)) { // it was unplugged since
        for (const kind of chosen) this.chosen[kind] = '';
        return this.#get(kinds);
      }
      const problem = NOT_THERE.includes(error.name) ? 'missing' : 'refused';
      for (const kind of kinds) this.problems[kind] = problem;
      return null;
    }
  }

  /** Another device of the kind. A phone opens its second camera only when the first one is closed. */
  async #reopen(kind) {
    const slot = kind === 'audio' ? 'audio' : 'camera';
    const opening = this.#opening;
    this[slot]?.stop();
    const stream = await this.#get([kind]);
    const [track] = stream?.getTracks() ?? [];
    const wanted = opening === this.#opening && (kind === 'audio' || this.wantsCamera);
    if (!wanted) return track?.stop();
    if (track) this.problems[kind] = '';
    this.#put(slot, null, false);
    if (track) this.#take(track);
    this.#onChange();
  }

  #take(track, slot = track.kind === 'audio' ? 'audio' : 'camera') {
    this.#put(slot, track, false);
    if (slot === 'audio') track.enabled = !this.muted;
    track.onended = () => this.#ended(slot);
  }

  #put(slot, track, tell = true) {
    const former = this[slot];
    if (former) former.onended = null;
    former?.stop();
    this[slot] = track;
    if (former) this.stream.removeTrack(former);
    if (track && slot === 'camera') this.stream.addTrack(track);
    if (tell) this.#onChange();
  }

  /** Unplugged, or the lid was closed: another device of the kind takes its place, if there is one. */
  async #ended(slot) {
    this.#put(slot, null);
    if (slot !== 'screen') {
      this.chosen[slot === 'audio' ? 'audio' : 'video'] = '';
      await this.#reopen(slot === 'audio' ? 'audio' : 'video');
    }
    this.#onEnded(slot, this[slot] !== null);
  }

  async #devicesChanged() {
    const inCall = this.isOpen || this.problems.audio === 'missing';
    if (inCall && !this.audio && this.problems.audio === 'missing') await this.#reopen('audio');
    this.#onChange();
  }

  #stop() {
    this.#opening += 1;
    for (const slot of ['audio', 'camera', 'screen']) this.#put(slot, null, false);
    this.problems = { audio: '', video: '' };
  }
}
