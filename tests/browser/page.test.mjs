// The live page in headless Chromium.
//
// VMPROBE_URL         where the page is (a probe that runs, or the example serve_fixture)
// VMPROBE_VM          name of a VM that must be among the conversations (default: any named one)
// VMPROBE_WAYS        ways between taps that must be shown (default: any number)
// VMPROBE_HOSTILE     a name that would be markup, which the probe knows (default: not tested)
// VMPROBE_SCREENSHOT  file for a screenshot (default: none is taken)
// CHROMIUM            the browser (default: /usr/bin/chromium)

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { chromium } from 'playwright-core';

const url = process.env.VMPROBE_URL;
const vm = process.env.VMPROBE_VM;
const ways = process.env.VMPROBE_WAYS;
const hostile = process.env.VMPROBE_HOSTILE;
const screenshot = process.env.VMPROBE_SCREENSHOT;
const PATIENCE_MS = 20_000;

const SECTIONS = ['traffic', 'alerts', 'conversations', 'ledger', 'workers', 'taps', 'paths', 'migrations'];
const BROWSER_FLAGS = [
  '--no-sandbox', '--disable-gpu', '--use-angle=swiftshader', '--enable-unsafe-swiftshader',
  '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run',
];

let browser;
let page;
const complaints = [];
const foreign = [];

/** A page that notes every error of scripts and every request to another host. */
async function open(options) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, locale: 'en-US', ...options });
  const opened = await context.newPage();
  opened.setDefaultTimeout(PATIENCE_MS);
  opened.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') complaints.push(message.text());
  });
  opened.on('pageerror', (error) => complaints.push(String(error)));
  opened.on('dialog', (dialog) => {
    complaints.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  opened.on('request', (request) => {
    if (new URL(request.url()).origin !== new URL(url).origin) foreign.push(request.url());
  });
  await opened.goto(url);
  await opened.locator('#conversation-rows tr').first().waitFor();
  return opened;
}

const texts = (locator) => locator.evaluateAll((nodes) => nodes.map((node) => node.textContent));

before(async () => {
  assert.ok(url, 'VMPROBE_URL says where the page is');
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: BROWSER_FLAGS });
  page = await open({});
});

after(async () => browser?.close());

test('title and header name the probe', async () => {
  const probe = await page.locator('#probe-id').textContent();
  assert.ok(probe && probe !== '–');
  assert.match(await page.title(), /vmprobe$/);
  assert.match(await page.locator('#window-time').textContent(), /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC$/);
});

test('every section is there and visible', async () => {
  for (const id of SECTIONS) {
    await page.locator(`#${id}`).scrollIntoViewIfNeeded();
    assert.ok(await page.locator(`#${id} h2`).isVisible(), id);
  }
});

test('the charts have a line', async () => {
  for (const id of ['chart-packets', 'chart-bits']) {
    const drawn = await page.locator(`#${id} .chart-line`).getAttribute('d');
    assert.match(drawn, /^M[\d.]+ [\d.]+/);
    assert.ok(!drawn.includes('NaN'));
  }
});

test('a named VM is among the conversations', async () => {
  const named = await texts(page.locator('#conversation-rows .vm:not(.unnamed)'));
  assert.ok(named.length > 0);
  if (vm) assert.ok(named.includes(vm), `${vm} in ${named}`);
});

test('an alert is shown with severity and who', async () => {
  const alert = page.locator('#alert-list .alert').first();
  await alert.waitFor();
  assert.ok((await alert.locator('.severity').textContent()).length > 0);
  assert.ok((await alert.locator('.alert-who').textContent()).trim().length > 0);
});

test('the ledger leaves nothing unaccounted and adds up', async () => {
  const number = async (id) => Number((await page.locator(id).textContent()).replaceAll(',', ''));
  assert.equal(await number('#tile-unaccounted'), 0);
  assert.equal(await number('#ledger-unaccounted'), 0);
  await page.locator('#pause').click();
  const [received, accounted, inFlight, caused] = await Promise.all(
    ['#ledger-received', '#ledger-accounted', '#ledger-in-flight', '#ledger-caused'].map(number),
  );
  await page.locator('#pause').click();
  assert.ok(received > 0);
  assert.equal(received, accounted + inFlight + caused);
});

test('each tap says what it missed', async () => {
  const rows = await texts(page.locator('#tap-rows tr'));
  assert.ok(rows.length > 0);
  for (const row of rows) {
    assert.match(row, /bit\/s.*\d\s%/);
    assert.doesNotMatch(row, /NaN|undefined|null/);
  }
  assert.match(await page.locator('#taps-note').textContent(), /^shares of the frames of the last \d+\s(s|min)/);
});

test('ways between taps have a range and a bound, or words say why there are none', async () => {
  const rows = page.locator('#path-rows tr');
  if (ways) assert.equal(await rows.count(), Number(ways));
  if (await rows.count() === 0) {
    assert.match(await page.locator('#paths-empty').textContent(), /nothing to compare|No packet/);
    assert.ok(await page.locator('#paths-legend').isHidden());
    return;
  }
  for (const row of await texts(rows)) {
    assert.match(row, /\d\s%/);
    assert.match(row, /± \d[\d.]*\s(ns|µs|ms|s)\d|one direction only/);
    assert.doesNotMatch(row, /NaN|undefined|null/);
  }
  assert.ok(await page.locator('#paths-legend').isVisible());
  // The fixture has a tap of that kind, the demo cloud has none.
  const oneWay = (await texts(rows)).filter((row) => row.includes('shows one direction only'));
  assert.equal(oneWay.length, hostile ? 1 : 0);
});

test('one tap has nothing to compare, in both languages', async () => {
  const opened = await open({});
  await opened.route('**/api/v1/live/stream', (route) => route.abort());
  await opened.route('**/api/v1/live', async (route) => {
    const answer = await route.fetch();
    const live = await answer.json();
    await route.fulfill({ json: { ...live, taps: live.taps.slice(0, 1), paths: [], path_sample_one_in: null } });
  });
  const before = complaints.length;
  await opened.reload();
  const words = opened.locator('#paths-empty');
  await words.waitFor();
  assert.equal(await words.textContent(), 'One tap: nothing to compare.');
  await opened.locator('#language').click();
  assert.equal(await words.textContent(), '只有一个采集点：无从比较。');
  complaints.length = before; // the stream that this test refused is logged as an error
  await opened.context().close();
});

test('the filter leaves only rows that match', async () => {
  const name = (await texts(page.locator('#conversation-rows .vm:not(.unnamed)')))[0];
  await page.locator('#filter').fill(name);
  const rows = await texts(page.locator('#conversation-rows tr'));
  assert.ok(rows.length > 0 && rows.every((row) => row.includes(name)), `${name}: ${rows}`);
  await page.locator('#filter').fill('no such name anywhere');
  assert.equal(await page.locator('#conversation-rows tr').count(), 0);
  assert.ok(await page.locator('#conversations-empty').isVisible());
  await page.locator('#filter').fill('');
});

test('columns are sorted from the keyboard', async () => {
  const header = page.locator('#conversation-table th[data-sort="source"]');
  await header.locator('button').focus();
  await page.keyboard.press('Enter');
  assert.equal(await header.getAttribute('aria-sort'), 'ascending');
  const first = await page.locator('#conversation-rows tr').first().textContent();
  await page.keyboard.press('Space');
  assert.equal(await header.getAttribute('aria-sort'), 'descending');
  const rows = await page.locator('#conversation-rows tr').count();
  if (rows > 1) assert.notEqual(await page.locator('#conversation-rows tr').first().textContent(), first);
  await page.locator('#conversation-table th[data-sort="total"] button').press('Enter');
});

test('the chart is read from the keyboard', async () => {
  await page.locator('#chart-packets').focus();
  await page.keyboard.press('ArrowLeft');
  assert.match(await page.locator('#chart-packets-readout').textContent(), /^\d\d:\d\d:\d\d UTC · /);
  await page.keyboard.press('Escape');
  assert.match(await page.locator('#chart-packets-readout').textContent(), /^now · /);
});

test('every control has a name and every table has headers', async () => {
  const nameless = await page.evaluate(() => [...document.querySelectorAll('button, input, a, [role=region], [role=img]')]
    .filter((node) => !(node.textContent.trim() || node.getAttribute('aria-label') || node.labels?.length
      || node.getAttribute('aria-labelledby') || node.querySelector('img[alt]')))
    .map((node) => node.outerHTML));
  assert.deepEqual(nameless, []);
  const bare = await page.evaluate(() => [...document.querySelectorAll('table')]
    .filter((table) => table.querySelectorAll('thead th[scope=col]').length === 0).length);
  assert.equal(bare, 0);
});

test('a hostile name is shown as text', { skip: !hostile && 'VMPROBE_HOSTILE is not set' }, async () => {
  const shown = await texts(page.locator('#conversation-rows .vm'));
  assert.ok(shown.includes(hostile), `${shown}`);
  assert.equal(await page.locator('main img').count(), 0);
});

test('a screenshot for the documentation', { skip: !screenshot && 'VMPROBE_SCREENSHOT is not set' }, async () => {
  await page.evaluate(() => scrollTo(0, 0));
  await page.screenshot({ path: screenshot, fullPage: true });
});

test('the language is switched and remembered', async () => {
  await page.locator('#language').click();
  assert.equal(await page.locator('html').getAttribute('lang'), 'zh-Hans');
  assert.equal(await page.locator('#alerts-title').textContent(), '告警');
  assert.equal(await page.locator('#filter').getAttribute('placeholder'), '筛选：虚拟机、租户、地址、服务……');
  const english = await page.evaluate(() => [...document.querySelectorAll('[data-text]')]
    .map((node) => node.textContent).filter((text) => /^[A-Za-z ,:()]{4,}$/.test(text)));
  assert.deepEqual(english, []);
  // What a real probe says of its alerts is said in Chinese too.
  const titles = vm ? await texts(page.locator('.alert-title')) : [];
  assert.deepEqual(titles.filter((title) => !/\p{Script=Han}/u.test(title)), []);
  await page.reload();
  await page.locator('#conversation-rows tr').first().waitFor();
  assert.equal(await page.locator('html').getAttribute('lang'), 'zh-Hans');
  await page.locator('#language').click();
  assert.equal(await page.locator('#alerts-title').textContent(), 'Alerts');
});

test('a Chinese browser gets Chinese, dark and narrow', async () => {
  const narrow = await open({ locale: 'zh-CN', colorScheme: 'dark', viewport: { width: 390, height: 844 } });
  assert.equal(await narrow.locator('#conversations-title').textContent(), '主要会话');
  const background = await narrow.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const [red] = background.match(/\d+/g).map(Number);
  assert.ok(red < 60, background);
  const surplus = await narrow.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.equal(surplus, 0);
  await narrow.context().close();
});

test('the page says when the probe is gone, and comes back', async () => {
  const lost = await open({});
  await lost.route('**/api/v1/**', (route) => route.abort());
  const before = complaints.length;
  await lost.reload();
  await lost.locator('#connection[data-state="down"]').waitFor();
  assert.match(await lost.locator('#banner').textContent(), /not reachable/);
  await lost.unroute('**/api/v1/**');
  await lost.locator('#connection:is([data-state="live"], [data-state="ended"])').waitFor();
  assert.doesNotMatch(await lost.locator('#banner').textContent(), /not reachable/);
  complaints.length = before; // the failed requests that this test made are logged as errors
  await lost.context().close();
});

test('nothing was loaded from elsewhere and nothing complained', () => {
  assert.deepEqual(foreign, []);
  assert.deepEqual(complaints, []);
});
