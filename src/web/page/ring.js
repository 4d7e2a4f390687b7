/*
 * What makes a call noticed, and keeps the screen on: the tone, vibration, the title, a notification, and
 * the wake lock. A locked iPhone cannot be rung by a web page.
 */

const RING_EVERY_MS = 3_000;
const TONES = [[659, 0], [784, 0.18], [988, 0.36], [784, 0.54]]; // hertz, and when, in seconds
const NOTE_S = 0.32;
const LOUDNESS = 0.15;
const VIBRATION_MS = [400, 200, 400];

export class Ring {
  #context = null; #timer = null; #notification = null; #lock = null; #isAwake = false; #onChange;

  /** `onChange()` when the browser has allowed sound, or has answered about notifications. */
  constructor(onChange) {
    this.#onChange = onChange;
    // Browsers let a page make a sound after the first press on it.
    addEventListener('pointerdown', () => this.unlock(), { once: true });
    addEventListener('keydown', () => this.unlock(), { once: true });
    document.addEventListener('visibilitychange', () => this.#keepAwake());
  }

  /** Whether the page may sound by itself. */
  get mayRing() {
    return this.#context?.state === 'running';
  }

  get canAskToNotify() {
    return isSecureContext && globalThis.Notification?.permission === 'default';
  }

  async askToNotify() {
    await Notification.requestPermission();
    this.#onChange();
  }

  /** Must be called from a press: only then does the browser allow sound. */
  async unlock() {
    this.#context ??= new AudioContext();
    await this.#context.resume();
    this.#onChange();
  }

  /** Rings while there are `words`, which the notification says; and keeps the screen on while `isAwake`. */
  update(words, isAwake) {
    if (words) this.#start(words);
    else this.#stop();
    if (isAwake === this.#isAwake) return;
    this.#isAwake = isAwake;
    this.#keepAwake();
  }

  #start(words) {
    if (this.#timer !== null) return;
    const ring = () => {
      this.#play();
      navigator.vibrate?.(VIBRATION_MS);
    };
    this.#timer = setInterval(ring, RING_EVERY_MS);
    ring();
    if (document.hidden) this.#notify(words);
  }

  #stop() {
    if (this.#timer === null) return;
    clearInterval(this.#timer);
    this.#timer = null;
    navigator.vibrate?.(0);
    this.#notification?.close();
    this.#notification = null;
  }

  #play() {
    if (!this.mayRing) return;
    for (const [frequency, after] of TONES) {
      const start = this.#context.currentTime + after;
      const tone = new OscillatorNode(this.#context, { frequency });
      const volume = new GainNode(this.#context, { gain: 0 });
      volume.gain.setValueAtTime(LOUDNESS, start);
      volume.gain.exponentialRampToValueAtTime(0.001, start + NOTE_S);
      tone.connect(volume).connect(this.#context.destination);
      tone.start(start);
      tone.stop(start + NOTE_S);
    }
  }

  #notify(words) {
    if (globalThis.Notification?.permission !== 'granted') return;
    try {
      const look = { tag: 'call', requireInteraction: true, icon: 'icon.svg' };
      this.#notification = new Notification(words, look);
      this.#notification.onclick = () => globalThis.focus();
    } catch { /* Android's browsers allow them to service workers only */ }
  }

  /** The lock is a promise, because a call may end while the browser is still being asked. */
  #keepAwake() {
    if (!this.#isAwake) this.#lock?.then((lock) => lock?.release());
    // The browser releases the lock of a page that is hidden. A low battery may forbid it.
    else if (!document.hidden) this.#lock = navigator.wakeLock?.request('screen').catch(() => null);
  }
}
