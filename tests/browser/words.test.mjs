/* The four languages say the same. */

import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { test } from 'node:test';

const PAGE = new URL('../../src/web/page/', import.meta.url);
const load = async (language) => {
  const source = await readFile(new URL(`words/${language}.js`, PAGE), 'utf8');
  return (await import(`data:text/javascript,${encodeURIComponent(source)}`)).default;
};
const holes = (sentence) => (sentence.match(/\{\w+\}/g) ?? []).sort();

for (const language of ['de', 'fr', 'es']) {
  test(`${language} has every sentence of the English page, with the same names and numbers in it`, async () => {
    const [english, other] = await Promise.all([load('en'), load(language)]);
    assert.deepEqual(Object.keys(other), Object.keys(english));
    for (const [key, sentence] of Object.entries(english)) {
      assert.deepEqual(holes(other[key]), holes(sentence), key);
      const bare = sentence.replace(/\{\w+\}/g, '');
      if (bare.length > 20) assert.notEqual(other[key], sentence, `${key} is not translated`);
    }
  });
}

test('every sentence is used, and every sentence that is used is there', async () => {
  const english = await load('en');
  const files = (await readdir(PAGE)).filter((name) => /\.(js|html)$/.test(name));
  const code = (await Promise.all(files.map((name) => readFile(new URL(name, PAGE), 'utf8')))).join('\n');
  const unused = Object.keys(english).filter((key) => !new RegExp(`['"]${key}['"]|\\b${key}[,:] `).test(code));
  assert.deepEqual(unused, []);
  const used = [...code.matchAll(/(?:data-words|data-label)="(\w+)"|'(say[A-Z]\w+)'/g)].map(([, a, b]) => a ?? b);
  assert.deepEqual(used.filter((key) => !(key in english)), []);
});
