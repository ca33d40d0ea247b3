// The live page: takes snapshots and hands them to its sections.

import { isOpen, showAlerts, showAlertTile } from './alerts.js';
import { makeChart } from './chart.js';
import { showConversations, startConversations } from './conversations.js';
import { showCoverage, startCoverage } from './coverage.js';
import { byId, setAttribute, setText } from './dom.js';
import { follow } from './feed.js';
import { bitRate, dateTime, si } from './format.js';
import { showLedger, showUnaccountedTile } from './ledger.js';
import { showWorkers } from './load.js';
import { showMigrations } from './migrations.js';
import { showPaths } from './paths.js';
import { showSources, startSources } from './sources.js';
import { showTaps } from './taps.js';
import { currentLanguage, loadTexts, t, toggleLanguage } from './texts.js';
import { showTraffic } from './traffic.js';

const DRAW_MS_MIN = 200; // a replay at full speed closes windows faster than eyes follow
const LATE_MS_MIN = 10000;
const LATE_WINDOWS = 10;

let snapshot = null; // the newest one
let connection = 'connecting';
let paused = false;
let arrivedMs = 0;
let drawnMs = 0;
let drawing = false;

const packetChart = makeChart('chart-packets', (point) => point.packets, '', () => t('unit.packets_per_s'));
const bitChart = makeChart('chart-bits', (point) => point.octets * 8, 'bit/s', () => '');

function take(next) {
  if (next.window_start_ns !== snapshot?.window_start_ns) arrivedMs = performance.now();
  snapshot = next;
  if (!paused) schedule();
}

function schedule() {
  if (drawing) return;
  drawing = true;
  const wait = Math.max(0, drawnMs + DRAW_MS_MIN - performance.now());
  setTimeout(() => requestAnimationFrame(() => {
    drawing = false;
    drawnMs = performance.now();
    draw();
  }), wait);
}

function draw() {
  showConnection();
  if (!snapshot) return;
  const lengthMs = snapshot.window_length_ms || 1000;
  const perSecond = 1000 / lengthMs;
  const endNs = snapshot.window_start_ns + lengthMs * 1e6;
  showIdentity();
  showTiles();
  packetChart.show(snapshot.history, lengthMs);
  bitChart.show(snapshot.history, lengthMs);
  showTraffic(snapshot, perSecond);
  showAlerts(snapshot, endNs);
  showConversations(snapshot, perSecond);
  showLedger(snapshot);
  showWorkers(snapshot);
  showTaps(snapshot);
  showPaths(snapshot);
  showMigrations(snapshot);
  showSources();
  showCoverage();
}

function showIdentity() {
  setText(byId('probe-id'), snapshot.probe_id);
  setText(byId('domain'), snapshot.domain);
  setText(byId('mode'), t(`mode.${snapshot.mode}`));
  setText(byId('version'), snapshot.version);
  const started = snapshot.window_count > 0;
  setText(byId('window-time'), started ? `${dateTime(snapshot.window_start_ns)} UTC` : t('window.none'));
  const alerts = snapshot.alerts.filter(isOpen).length;
  document.title = `${alerts > 0 ? `(${alerts}) ` : ''}${snapshot.probe_id} · vmprobe`;
}

function showTiles() {
  const { totals } = snapshot;
  setText(byId('tile-packets'), si(totals.packets_per_s, ''));
  setText(byId('tile-bits'), bitRate(totals.octets_per_s));
  setText(byId('tile-flows'), si(totals.flows_live, ''));
  setText(byId('tile-flows-note'), t('tile.flows.new', { rate: si(totals.flows_new_per_s, '') }));
  showAlertTile(snapshot);
  showUnaccountedTile(snapshot);
}

/** Milliseconds since the last new window, or 0 where it is not late. */
function lateMs() {
  if (!snapshot || snapshot.ended || snapshot.mode !== 'run' || snapshot.window_count === 0) return 0;
  const age = performance.now() - arrivedMs;
  return age > Math.max(LATE_MS_MIN, LATE_WINDOWS * snapshot.window_length_ms) ? age : 0;
}

function showConnection() {
  const late = connection === 'down' ? 0 : lateMs();
  const ended = connection !== 'down' && snapshot?.ended;
  const state = paused ? 'paused' : ended ? 'ended' : late > 0 ? 'late' : connection;
  setAttribute(byId('connection'), 'data-state', state);
  setText(byId('connection-text'), t(`connection.${state}`));
  setText(byId('pause'), paused ? t('resume') : t('pause'));
  setAttribute(byId('pause'), 'aria-pressed', paused);
  setText(byId('language'), currentLanguage() === 'en' ? '中文' : 'English');
  setAttribute(byId('language'), 'lang', currentLanguage() === 'en' ? 'zh-Hans' : 'en');
  setAttribute(document.body, 'data-stale', connection === 'down' || late > 0);
  showBanner(late);
}

function showBanner(late) {
  const banner = byId('banner');
  let message = '';
  if (connection === 'down') message = t('banner.down');
  else if (late > 0) message = t('banner.late', { seconds: Math.round(late / 1000) });
  else if (snapshot?.ended) message = t('banner.ended');
  else if (snapshot?.window_count === 0) message = t('banner.waiting');
  banner.hidden = message === '';
  setAttribute(banner, 'data-kind', connection === 'down' || late > 0 ? 'fault' : 'calm');
  setText(banner, message);
}

function startButtons() {
  byId('pause').addEventListener('click', () => {
    paused = !paused;
    draw();
  });
  byId('language').addEventListener('click', () => {
    toggleLanguage();
    draw();
  });
}

await loadTexts();
startButtons();
startConversations();
startSources();
startCoverage();
packetChart.draw();
bitChart.draw();
showConnection();
follow(take, (state) => {
  connection = state;
  showConnection();
});
setInterval(showConnection, 1000);
