// Every text of the page in English and Chinese, from one table.

import { setAttribute, setText } from './dom.js';

const STORE_KEY = 'vmprobe.language';
const LANGUAGES = { en: 'en', zh: 'zh-Hans' };

let table = {};
let language = 'en';

function remembered() {
  try {
    return localStorage.getItem(STORE_KEY);
  } catch {
    return null; // A browser may forbid storage; the page then asks the browser each time.
  }
}

function remember() {
  try {
    localStorage.setItem(STORE_KEY, language);
  } catch {
    // See above.
  }
}

/** Loads the table and chooses the language. */
export async function loadTexts() {
  const answer = await fetch('/page/i18n.json');
  if (!answer.ok) throw new Error(`texts: HTTP ${answer.status}`);
  table = await answer.json();
  const wanted = remembered() ?? (navigator.language?.toLowerCase().startsWith('zh') ? 'zh' : 'en');
  language = wanted in LANGUAGES ? wanted : 'en';
  apply();
}

const isLoaded = () => Object.keys(table).length > 0;

export const currentLanguage = () => language;

export function toggleLanguage() {
  language = language === 'en' ? 'zh' : 'en';
  remember();
  apply();
}

/** The text of `key` with `{name}` replaced. */
export function t(key, values = {}) {
  // Before the table has come nothing is known of any key.
  const template = table[key]?.[language] ?? (isLoaded() ? key : '');
  return template.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** The text of `key`, or `otherwise` where there is none. */
export const textOr = (key, otherwise) => table[key]?.[language] ?? otherwise;

function apply() {
  document.documentElement.lang = LANGUAGES[language];
  for (const node of document.querySelectorAll('[data-text]')) setText(node, t(node.dataset.text));
  for (const node of document.querySelectorAll('[data-label]')) {
    setAttribute(node, 'aria-label', t(node.dataset.label));
  }
  for (const node of document.querySelectorAll('[data-hint]')) {
    setAttribute(node, 'placeholder', t(node.dataset.hint));
  }
}
