/*
 * The language, and sentences with names in them. A name is somebody else's text: it stands in a `<bdi>`
 * of its own, or between the characters that isolate it, so that it can't turn the sentence around it.
 */

const LANGUAGES = ['en', 'de', 'fr', 'es'];
const [FIRST_STRONG_ISOLATE, POP_ISOLATE] = ['\u2068', '\u2069'];
const NUMBERS = ['count', 'times', 'time']; // our own; all else is somebody's text
const LONGEST_TITLE_NAME = 40;

export const language = navigator.languages
  .map((tag) => tag.slice(0, 2).toLowerCase())
  .find((tag) => LANGUAGES.includes(tag)) ?? LANGUAGES[0];

const { default: words } = await import(`./words/${language}.js`);

/** The sentence as plain text, for titles and labels. */
export function text(key, values = {}) {
  return words[key].replace(/\{(\w+)\}/g, (_, name) => {
    const value = String(values[name] ?? '');
    return NUMBERS.includes(name) ? value : FIRST_STRONG_ISOLATE + value.slice(0, LONGEST_TITLE_NAME) + POP_ISOLATE;
  });
}

/** Puts a sentence into an element, unless it is there already: the same words would be read out again. */
export function put(element, key, values = {}) {
  const id = key === null ? '' : JSON.stringify([key, values]);
  if (element.dataset.said === id) return;
  element.dataset.said = id;
  const parts = key === null ? [] : words[key].split(/(\{\w+\})/).filter(Boolean);
  element.replaceChildren(...parts.map((part) => {
    if (!part.startsWith('{')) return part;
    const key = part.slice(1, -1);
    return NUMBERS.includes(key) ? String(values[key]) : nameOf(String(values[key] ?? ''));
  }));
}

/** A name as an element; a long one ends in an ellipsis. */
export function nameOf(name) {
  const element = document.createElement('bdi');
  element.className = 'name';
  element.textContent = name;
  return element;
}

export function time(date) {
  return date.toLocaleTimeString(navigator.language, { hour: '2-digit', minute: '2-digit' });
}

/** Gives every element in the page its words. */
export function translatePage() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll('[data-words]')) put(element, element.dataset.words);
  for (const element of document.querySelectorAll('[data-label]')) {
    element.setAttribute('aria-label', text(element.dataset.label));
  }
}
