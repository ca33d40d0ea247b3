// Delay and loss on the ways between taps.

import { byId, keyed, rowMaker, setEmpty, setText, text } from './dom.js';
import { clock, count, duration, percentRange, si, timeSpan } from './format.js';
import { marked, twoLines } from './taps.js';
import { t } from './texts.js';

const time = (ns) => (ns === null ? '–' : duration(ns));

/** A loss is a range: what is proven, to what may be. */
const loss = ({ loss_low_percent: low, loss_high_percent: high }) =>
  (low === null ? '–' : percentRange(low / 100, high / 100));

/** An offset never stands without its bound. */
function offset(path) {
  if (path.clock_offset_ns === null) return '–';
  const sign = path.clock_offset_ns > 0 ? '+' : '';
  return `${sign}${duration(path.clock_offset_ns)}`;
}

const bound = (path) => (path.clock_offset_ns === null ? t('path.one_direction') : `± ${duration(path.clock_offset_bound_ns)}`);

const between = (path) =>
  (path.delay_min_ns === null ? '–' : `${duration(path.delay_min_ns)} … ${duration(path.delay_max_ns)}`);

const ONE_WAY_SHARE_MAX = 0.5; // above it the tap copies one direction, rather than answers taking another way

/** A tap with its host, and whether it shows one direction only. */
function tap(side, oneWayPairs) {
  const isOneWay = (path) => path[oneWayPairs] > ONE_WAY_SHARE_MAX * path.answered_pairs;
  const about = (path) => [path[`${side}_host`], isOneWay(path) && t('path.tap_one_way')];
  return marked(twoLines((path) => path[`${side}_tap`], (path) => about(path).filter(Boolean).join(' · ')), isOneWay);
}

const pathRow = rowMaker([
  { header: true, className: 'place', fill: tap('from', 'first_tap_one_way_pairs') },
  { className: 'place', fill: tap('to', 'later_tap_one_way_pairs') },
  {
    className: 'number',
    fill: twoLines((path) => count(path.delay_sample_count), (path) => si(path.recent.sampled, '')),
  },
  { className: 'number', fill: twoLines((path) => time(path.delay_mean_ns), between) },
  { className: 'number', fill: text((path) => time(path.delay_p50_ns)) },
  { className: 'number', fill: text((path) => time(path.delay_p90_ns)) },
  { className: 'number', fill: text((path) => time(path.delay_p99_ns)) },
  { className: 'number', fill: text((path) => time(path.delay_excess_mean_ns)) },
  {
    className: 'number',
    fill: marked(twoLines(({ recent }) => loss(recent), ({ window }) => loss(window)), ({ recent }) => recent.network_loss > 0),
  },
  { className: 'number', fill: twoLines(offset, bound) },
  { className: 'number', fill: text((path) => clock(path.window_start_ns)) },
]);

/** Why there is nothing to show, in words. */
function emptyText({ taps, path_sample_one_in: oneIn }) {
  if (oneIn !== null) return t('paths.none');
  if (taps.length > 1) return t('paths.off');
  return taps.length === 1 ? t('paths.one_tap') : t('taps.empty');
}

/** Shows each way between two taps. */
export function showPaths(snapshot) {
  const { paths, path_sample_one_in: oneIn } = snapshot;
  const lengthMs = Math.max(0, ...paths.map((path) => path.recent.length_ms));
  const followed = oneIn === 1 ? t('paths.all') : t('paths.one_in', { count: count(oneIn) });
  const note = t('paths.note', { followed, time: timeSpan(lengthMs / 1000) });
  setText(byId('paths-note'), paths.length > 0 ? note : '');
  byId('paths-legend').hidden = paths.length === 0;
  keyed(byId('path-rows'), paths, (path) => `${path.from_tap}\n${path.to_tap}`, pathRow);
  setEmpty(byId('paths-empty'), paths.length === 0 ? emptyText(snapshot) : null);
}
