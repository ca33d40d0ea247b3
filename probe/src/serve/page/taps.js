// Health of taps.

import { byId, element, keyed, rowMaker, setEmpty, setText } from './dom.js';
import { bitRate, count, duration, percent, si, timeSpan } from './format.js';
import { t, textOr } from './texts.js';

const ONE_WAY_SHARE_MAX = 0.5; // above it a tap copies one direction, rather than missing some packets

/** A cell with two lines, the second one smaller. */
export const twoLines = (first, second) => (cell, item) => {
  if (!cell.lines) {
    cell.lines = [element('span', 'first-line'), element('span', 'second-line')];
    cell.append(...cell.lines);
  }
  setText(cell.lines[0], first(item));
  setText(cell.lines[1], second(item));
};

/** Marks the cell as a loss where `is` says so. */
export const marked = (fill, is) => (cell, item) => {
  fill(cell, item);
  cell.classList.toggle('loss', is(item));
};

/** The share of the last minutes, and the count of the last window. */
const share = (of) => twoLines(
  (tap) => {
    const counted = of(tap.recent);
    return counted === null || tap.recent.packets === 0 ? '–' : percent(counted / tap.recent.packets);
  },
  (tap) => (of(tap.window) === null ? '' : count(of(tap.window))),
);

const perSecond = (health, value) => (value * 1000) / Math.max(1, health.length_ms);

function bothWays({ recent }) {
  if (recent.coverage_percent === null) return '–';
  return percent(recent.coverage_percent / 100);
}

const isOneWay = ({ recent }) =>
  recent.tcp_one_way_conversations > ONE_WAY_SHARE_MAX * recent.tcp_conversations;

function clockText(tap) {
  return textOr(`clock.${tap.clock_source}`, tap.clock_source);
}

function clockBound(tap) {
  const bound = tap.clock_error_bound_ns;
  return bound === null ? '' : `±${duration(bound)}`;
}

const tapRow = rowMaker([
  { header: true, className: 'place', fill: twoLines((tap) => tap.name, (tap) => tap.host ?? '') },
  {
    className: 'number',
    fill: twoLines(
      ({ window }) => si(perSecond(window, window.packets), ''),
      ({ window }) => bitRate(perSecond(window, window.octets)),
    ),
  },
  { className: 'number', fill: share((health) => health.duplicates) },
  { className: 'number', fill: share((health) => health.copies) },
  {
    className: 'number',
    fill: marked(
      twoLines(bothWays, ({ recent }) => t('tap.conversations', { count: si(recent.tcp_conversations, '') })),
      isOneWay,
    ),
  },
  { className: 'number', fill: share((health) => health.snapped) },
  { className: 'number', fill: share((health) => health.segment_unknown) },
  { className: 'number', fill: share((health) => health.segment_unmapped) },
  {
    className: 'number',
    fill: marked(
      twoLines(
        ({ recent }) => (recent.mirror_gaps === null ? '–' : count(recent.mirror_gaps)),
        ({ window }) => (window.mirror_gaps === null ? '' : count(window.mirror_gaps)),
      ),
      ({ recent }) => recent.mirror_gaps > 0,
    ),
  },
  { fill: twoLines(clockText, clockBound) },
]);

/** Shows each tap. */
export function showTaps({ taps }) {
  const lengthMs = Math.max(0, ...taps.map((tap) => tap.recent.length_ms));
  setText(byId('taps-note'), lengthMs > 0 ? t('taps.note', { time: timeSpan(lengthMs / 1000) }) : '');
  keyed(byId('tap-rows'), taps, (tap) => tap.name, tapRow);
  setEmpty(byId('taps-empty'), taps.length === 0 ? t('taps.empty') : null);
}
