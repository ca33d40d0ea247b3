// Alerts: what, who, since when, and how sure.

import { byId, element, keyed, setAttribute, setEmpty, setText } from './dom.js';
import { count, dateTime, figure, span } from './format.js';
import { t, textOr } from './texts.js';

const SEVERITIES = ['critical', 'high', 'medium', 'low', 'info'];

let announced = null; // ids already read out; null before the first snapshot

export const isOpen = (alert) => alert.state !== 'closed';

function who(alert, side) {
  const name = alert[`${side}_virtual_station_name`];
  const address = alert[`${side}_address`];
  if (name && address) return `${name} (${address})`;
  return name ?? address ?? null;
}

const detector = (alert) => textOr(`detector.${alert.detector}`, alert.detector);
/** What the sentences of detectors say, so that they can be said in the page's language. */
const TITLES = {
  port_scan: /^(?<who>.*) scans ports$/,
  syn_flood: /^SYN flood on (?<who>.*) port (?<port>\d+)$/,
};

/** The sentence of an alert; as it is where the page does not know it. */
function title(alert) {
  const said = TITLES[alert.detector]?.exec(alert.title);
  return said ? t(`title.${alert.detector}`, said.groups) : alert.title;
}

const severity = (alert) => textOr(`severity.${alert.severity}`, alert.severity);

function ago(ns, nowNs) {
  const [number, unit] = span((nowNs - ns) / 1e9);
  return t(`ago.${unit}`, { number });
}

function makeAlert() {
  const parts = {
    severity: element('span', 'severity'),
    detector: element('strong', 'detector'),
    state: element('span', 'state'),
    title: element('bdi', 'alert-title'),
    source: element('bdi'),
    arrow: element('span', 'arrow', ' → '),
    destination: element('bdi'),
    since: element('span', 'since'),
    statistic: element('span', 'statistic'),
  };
  const head = element('div', 'alert-head', parts.severity, parts.detector, parts.state, parts.since);
  const whoLine = element('div', 'alert-who', parts.source, parts.arrow, parts.destination);
  const node = element('li', 'alert', head, element('div', 'alert-what', parts.title),
    element('div', 'alert-foot', whoLine, parts.statistic));
  return { node, update: (alert) => fillAlert(node, parts, alert) };
}

function fillAlert(node, parts, alert) {
  setAttribute(node, 'data-severity', alert.severity);
  setAttribute(node, 'data-state', alert.state);
  setText(parts.severity, severity(alert));
  setText(parts.detector, detector(alert));
  setText(parts.state, textOr(`state.${alert.state}`, alert.state));
  setText(parts.title, title(alert));
  const [source, destination] = [who(alert, 'source'), who(alert, 'destination')];
  setText(parts.source, source ?? '');
  setText(parts.destination, destination ?? '');
  parts.arrow.hidden = source === null || destination === null;
  setText(parts.since, t('alert.since', { ago: ago(alert.first_seen_ns, alert.now) }));
  setAttribute(parts.since, 'title', `${dateTime(alert.first_seen_ns)} – ${dateTime(alert.last_seen_ns)} UTC`);
  setText(parts.statistic, t('alert.statistic', {
    statistic: figure(alert.statistic ?? NaN),
    threshold: figure(alert.threshold ?? NaN),
  }));
}

/** Open ones first, then by severity, then the newest. */
function order(left, right) {
  const rank = (alert) => (SEVERITIES.indexOf(alert.severity) + 1 || 9) + (isOpen(alert) ? 0 : 10);
  return rank(left) - rank(right) || right.last_seen_ns - left.last_seen_ns;
}

function announce(alerts) {
  const fresh = alerts.filter((alert) => announced !== null && isOpen(alert) && !announced.has(alert.id));
  announced = new Set(alerts.map((alert) => alert.id));
  if (fresh.length === 0) return;
  const first = `${severity(fresh[0])}: ${detector(fresh[0])}, ${title(fresh[0])}`;
  const more = fresh.length > 1 ? ` ${t('alert.more', { count: fresh.length - 1 })}` : '';
  setText(byId('announcer'), `${t('alert.new')} ${first}.${more}`);
}

/** Shows the alerts of a snapshot, times relative to the end of its last window. */
export function showAlerts(snapshot, nowNs) {
  const alerts = snapshot.alerts.map((alert) => ({ ...alert, now: nowNs })).sort(order);
  keyed(byId('alert-list'), alerts, (alert) => alert.id, makeAlert);
  const open = alerts.filter(isOpen).length;
  setText(byId('alerts-count'), alerts.length === 0 ? '' : t('alerts.count', { open: count(open), total: count(alerts.length) }));
  const nothing = snapshot.window_count === 0 ? t('waiting') : t('alerts.empty');
  setEmpty(byId('alerts-empty'), alerts.length === 0 ? nothing : null);
  announce(alerts);
}

/** The tile with the number of open alerts. */
export function showAlertTile(snapshot) {
  const open = snapshot.alerts.filter(isOpen);
  const worst = SEVERITIES.find((name) => open.some((alert) => alert.severity === name));
  setText(byId('tile-alerts'), count(open.length));
  setAttribute(byId('tile-alerts-box'), 'data-severity', worst ?? null);
  const note = worst ? t('tile.alerts.worst', { severity: t(`severity.${worst}`) }) : t('tile.alerts.none');
  setText(byId('tile-alerts-note'), note);
}
