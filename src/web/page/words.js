/*
 * The language, and sentences with names in them. A name is somebody else's text, so it is isolated in a
 * `<bdi>` or between isolate characters, and cannot change the text direction of the sentence around it.
 */

const LANGUAGES = ['en', 'de', 'fr', 'es'];
const [FIRST_STRONG_ISOLATE, POP_ISOLATE] = ['\u2068', '\u2069'];
const PLAIN = ['count', 'times', 'time', 'host']; // nothing in them can turn; all else is somebody's text
const LONGEST_TITLE_NAME = 40;

const language = navigator.languages
  .map((tag) => tag.slice(0, 2).toLowerCase())
  .find((tag) => LANGUAGES.includes(tag)) ?? LANGUAGES[0];

const { default: sentences } = await import(`./words/${language}.js`);
document.documentElement.lang = language;

/** A new element with these properties; `data` fills its `dataset`. A string among the children is text. */
export function node(tag, { data, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  Object.assign(element.dataset, data);
  element.append(...children);
  return element;
}

/** A button that does `action` to somebody. */
export function actionButton(action, name, className, ...children) {
  return node('button', { type: 'button', className, data: { action, name } }, ...children);
}

/** A name as an element; a long one ends in an ellipsis. */
export function nameOf(name) {
  return node('bdi', { className: 'name' }, name);
}

/** The sentence as plain text, for titles and labels. */
export function text(key, values) {
  const parts = sentence(key, values).map((part) => {
    if (typeof part === 'string') return part;
    return FIRST_STRONG_ISOLATE + part.textContent.slice(0, LONGEST_TITLE_NAME) + POP_ISOLATE;
  });
  return parts.join('');
}

/** The sentence as the children of an element. */
export function sentence(key, values = {}) {
  return sentences[key].split(/\{(\w+)\}/).map((part, i) => {
    if (i % 2 === 0) return part;
    const value = String(values[part] ?? '');
    return PLAIN.includes(part) ? value : nameOf(value);
  });
}

/** Puts a sentence into an element if it is not there yet: a screen reader would read it out again. */
export function put(element, key, values) {
  const said = key === null ? '' : JSON.stringify([key, values]);
  if (element.dataset.said === said) return;
  element.dataset.said = said;
  element.replaceChildren(...(key === null ? [] : sentence(key, values)));
}

/** Gives every element in `root` its words. */
export function translate(root) {
  for (const element of root.querySelectorAll('[data-words], [data-label], [data-hint]')) {
    const { words, label, hint } = element.dataset;
    if (words) put(element, words);
    if (label) element.ariaLabel = text(label);
    if (hint) element.placeholder = text(hint);
  }
}
