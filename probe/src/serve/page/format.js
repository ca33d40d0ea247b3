// Numbers and times as text. Rates carry SI prefixes; counts are written in full.

const PREFIXES = ['', 'k', 'M', 'G', 'T', 'P', 'E'];
const NARROW_SPACE = '\u202f';

/** Three significant digits with an SI prefix: 12.3 M. */
export function si(value, unit) {
  if (!Number.isFinite(value)) return '–';
  let scaled = Math.abs(value);
  let step = 0;
  while (scaled >= 999.5 && step < PREFIXES.length - 1) {
    scaled /= 1000;
    step += 1;
  }
  const digits = scaled >= 99.95 || (step === 0 && Number.isInteger(scaled)) ? 0 : scaled >= 9.995 ? 1 : 2;
  const number = (value < 0 ? '−' : '') + (scaled === 0 ? '0' : scaled.toFixed(digits));
  return `${number}${NARROW_SPACE}${PREFIXES[step]}${unit}`.trimEnd();
}

/** As `si`, without zeros after the point: for axes. */
export const tick = (value, unit) => si(value, unit).replace(/(\.\d*?)0+(?=\D|$)/, '$1').replace(/\.(?=\D|$)/, '');

export const bitRate = (octetsPerSecond) => si(octetsPerSecond * 8, 'bit/s');

/** A count in full with thousands apart. */
export const count = (value) =>
  Number.isFinite(value) ? Math.round(value).toLocaleString('en-US').replace('-', '−') : '–';

/** A share of 1 in percent; a small one is not rounded to nothing. */
export function percent(share) {
  if (!Number.isFinite(share)) return '–';
  if (share > 0 && share < 0.001) return '< 0.1 %';
  return `${(share * 100).toFixed(1)}${NARROW_SPACE}%`;
}

/** A number of a detector: short, in full precision where it is small. */
export function figure(value) {
  if (!Number.isFinite(value)) return '–';
  const size = Math.abs(value);
  if (size >= 1e6) return si(value, '');
  if (size >= 100 || Number.isInteger(value)) return count(value);
  return String(Number(value.toPrecision(3))).replace('-', '−');
}

const pad = (number) => String(number).padStart(2, '0');

/** 14:03:07, UTC. */
export function clock(ns) {
  const time = new Date(ns / 1e6);
  return `${pad(time.getUTCHours())}:${pad(time.getUTCMinutes())}:${pad(time.getUTCSeconds())}`;
}

/** 2026-01-31 14:03:07, UTC. */
export function dateTime(ns) {
  const time = new Date(ns / 1e6);
  if (!ns || Number.isNaN(time.getTime())) return '–';
  const date = [time.getUTCFullYear(), pad(time.getUTCMonth() + 1), pad(time.getUTCDate())];
  return `${date.join('-')} ${clock(ns)}`;
}

/** Two shares of 1 as a range in percent; one where both are shown alike. */
export function percentRange(low, high) {
  const digits = high > 0 && high < 0.1 ? 2 : 1;
  const [least, most] = [low, high].map((share) => (share === 0 ? '0' : (share * 100).toFixed(digits)));
  if (high > 0 && Number(most) === 0) return `< 0.01${NARROW_SPACE}%`;
  return `${least === most ? '' : `${least}–`}${most}${NARROW_SPACE}%`;
}

/** A duration of nanoseconds in the unit that suits it: 250 ns, −1.2 ms. */
export function duration(ns) {
  const size = Math.abs(ns);
  const sign = ns < 0 ? '−' : '';
  const scaled = (unit, per) => `${sign}${Number((size / per).toPrecision(3))}${NARROW_SPACE}${unit}`;
  if (size < 1e3) return `${sign}${Math.round(size)}${NARROW_SPACE}ns`;
  if (size < 1e6) return scaled('µs', 1e3);
  return size < 1e9 ? scaled('ms', 1e6) : scaled('s', 1e9);
}

/** What is told apart of a span of seconds: number and unit key. */
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return [whole, 's'];
  if (whole < 3600) return [Math.floor(whole / 60), 'min'];
  if (whole < 172800) return [Math.floor(whole / 3600), 'h'];
  return [Math.floor(whole / 86400), 'd'];
}

/** A span of seconds in the largest unit that leaves nothing out but seconds: 45 s, 5 min. */
export function timeSpan(seconds) {
  const [number, unit] = seconds < 120 ? [seconds, 's'] : seconds < 7200 ? [seconds / 60, 'min'] : [seconds / 3600, 'h'];
  return `${Math.round(number)}${NARROW_SPACE}${unit}`;
}
