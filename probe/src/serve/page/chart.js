// One quantity over the last windows, drawn as SVG.

import { byId, element, setAttribute, setText, svg } from './dom.js';
import { clock, dateTime, si, tick } from './format.js';
import { t } from './texts.js';

const LEFT = 62;
const RIGHT = 10;
const TOP = 10;
const BOTTOM = 24;
const WINDOWS_MIN = 60;
const WINDOWS_MAX = 300;
const X_STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400];
const X_TICK_PX = 92;
const Y_TICKS = 4;

/** The smallest of 1, 2, 2.5, 5 times a power of ten that is not below `value`. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((step) => step >= value * 0.9999);
}

/**
 * A chart in the element `id`. `valueOf` gives a point's value; `unit` takes the SI prefix, `word`
 * follows it where the unit takes none.
 */
export function makeChart(id, valueOf, unit, word) {
  const write = (value) => `${si(value, unit)} ${word()}`.trimEnd();
  const box = byId(id);
  const readout = byId(`${id}-readout`);
  const drawing = svg('svg', { class: 'chart-drawing', 'aria-hidden': 'true' });
  const grid = svg('g', { class: 'chart-grid' });
  const area = svg('path', { class: 'chart-area' });
  const line = svg('path', { class: 'chart-line' });
  const marks = svg('g', { class: 'chart-marks' });
  const cursor = svg('g', { class: 'chart-cursor' });
  const cursorLine = svg('line', {});
  const cursorDot = svg('circle', { r: '3.5' });
  cursor.append(cursorLine, cursorDot);
  drawing.append(grid, area, line, marks, cursor);
  const empty = element('p', 'empty');
  box.append(drawing, empty);
  box.setAttribute('role', 'img');

  let points = [];
  let windowMs = 1000;
  let chosen = null; // start of the window under the cursor
  let scale = null;

  function show(history, lengthMs) {
    points = history;
    windowMs = lengthMs || 1000;
    draw();
  }

  function rate(point) {
    return valueOf(point) / (windowMs / 1000);
  }

  function draw() {
    const width = box.clientWidth;
    const height = box.clientHeight;
    empty.hidden = points.length > 0;
    drawing.style.visibility = points.length > 0 ? 'visible' : 'hidden';
    if (points.length === 0 || width < LEFT + RIGHT + 20) {
      setText(empty, t('chart.empty'));
      setText(readout, '');
      setAttribute(box, 'aria-label', t('chart.empty'));
      return;
    }
    setAttribute(drawing, 'viewBox', `0 0 ${width} ${height}`);
    scale = makeScale(width, height);
    drawGrid(width, height);
    drawLine(height);
    drawMarks(height);
    drawCursor(height);
  }

  function makeScale(width, height) {
    const newest = points[points.length - 1].window_start_ns;
    const windows = Math.max(WINDOWS_MIN, Math.min(WINDOWS_MAX, points.length));
    const spanNs = Math.max(windows * windowMs * 1e6, newest - points[0].window_start_ns);
    const top = roundUp(Math.max(...points.map(rate), 1));
    const x = (ns) => LEFT + (1 - (newest - ns) / spanNs) * (width - LEFT - RIGHT);
    const y = (value) => TOP + (1 - value / top) * (height - TOP - BOTTOM);
    return { newest, spanNs, top, x, y };
  }

  function drawGrid(width, height) {
    const parts = [];
    for (let step = 0; step <= Y_TICKS; step += 1) {
      const value = (scale.top * step) / Y_TICKS;
      const y = scale.y(value);
      parts.push(svg('line', { x1: LEFT, x2: width - RIGHT, y1: y, y2: y }));
      parts.push(label(tick(value, unit), { x: LEFT - 8, y: y + 4, 'text-anchor': 'end' }));
    }
    const room = Math.max(2, Math.floor((width - LEFT - RIGHT) / X_TICK_PX));
    const stepNs = 1e9 * (X_STEPS_S.find((step) => Math.floor(scale.spanNs / 1e9 / step) <= room) ?? 604800);
    const first = Math.ceil((scale.newest - scale.spanNs) / stepNs) * stepNs;
    for (let ns = first; ns <= scale.newest; ns += stepNs) {
      const x = scale.x(ns);
      if (x < LEFT + 24 || x > width - RIGHT - 24) continue;
      parts.push(svg('line', { x1: x, x2: x, y1: height - BOTTOM, y2: height - BOTTOM + 4 }));
      parts.push(label(clock(ns), { x, y: height - 6, 'text-anchor': 'middle' }));
    }
    grid.replaceChildren(...parts);
  }

  function label(text, attributes) {
    const node = svg('text', attributes);
    node.textContent = text;
    return node;
  }

  /** A line with gaps where windows are missing, and the area under it. */
  function drawLine(height) {
    const runs = [];
    let before = -Infinity;
    for (const point of points) {
      if (point.window_start_ns - before > windowMs * 1.5e6) runs.push([]);
      before = point.window_start_ns;
      runs[runs.length - 1].push([scale.x(before).toFixed(1), scale.y(rate(point)).toFixed(1)]);
    }
    const floor = height - BOTTOM;
    const path = (run) => `M${run.map((place) => place.join(' ')).join('L')}`;
    const closed = (run) => `${path(run)}L${run[run.length - 1][0]} ${floor}L${run[0][0]} ${floor}Z`;
    line.setAttribute('d', runs.map(path).join(''));
    area.setAttribute('d', runs.map(closed).join(''));
  }

  /** A small triangle on the axis where alerts opened. */
  function drawMarks(height) {
    const floor = height - BOTTOM;
    marks.replaceChildren(...points.filter((point) => point.alerts > 0).map((point) => {
      const x = scale.x(point.window_start_ns);
      return svg('path', { d: `M${x - 4} ${floor}h8l-4 -7Z` });
    }));
  }

  function drawCursor(height) {
    const held = chosen !== null;
    const point = points.findLast((known) => !held || known.window_start_ns <= chosen) ?? points[0];
    cursor.style.visibility = held ? 'visible' : 'hidden';
    if (held) {
      const x = scale.x(point.window_start_ns);
      for (const [name, value] of [['x1', x], ['x2', x], ['y1', TOP], ['y2', height - BOTTOM]]) {
        cursorLine.setAttribute(name, value);
      }
      cursorDot.setAttribute('cx', x);
      cursorDot.setAttribute('cy', scale.y(rate(point)));
    }
    const what = held ? `${clock(point.window_start_ns)} UTC` : t('chart.now');
    const alerts = held && point.alerts > 0 ? ` · ${t('chart.alerts', { count: point.alerts })}` : '';
    setText(readout, `${what} · ${write(rate(point))}${alerts}`);
    setAttribute(box, 'aria-label', t('chart.label', {
      value: write(rate(point)),
      time: dateTime(point.window_start_ns),
      peak: write(Math.max(...points.map(rate))),
    }));
  }

  function choose(ns) {
    chosen = ns;
    if (points.length > 0) draw();
  }

  box.addEventListener('pointermove', (event) => {
    if (!scale) return;
    const x = event.clientX - box.getBoundingClientRect().left;
    const share = (x - LEFT) / (box.clientWidth - LEFT - RIGHT);
    const ns = scale.newest - (1 - share) * scale.spanNs + windowMs * 5e5;
    choose(Math.max(points[0]?.window_start_ns ?? 0, ns));
  });
  box.addEventListener('pointerleave', () => choose(null));
  box.addEventListener('blur', () => choose(null));
  box.addEventListener('keydown', (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -30, PageDown: 30, Home: -Infinity, End: Infinity };
    if (event.key === 'Escape') return choose(null);
    if (!(event.key in steps) || points.length === 0) return undefined;
    event.preventDefault();
    const at = chosen === null ? points.length - 1
      : Math.max(0, points.findLastIndex((point) => point.window_start_ns <= chosen));
    const next = Math.max(0, Math.min(points.length - 1, at + steps[event.key]));
    return choose(points[next].window_start_ns);
  });
  new ResizeObserver(draw).observe(box);
  return { show, draw };
}
