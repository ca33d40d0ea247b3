// Which interfaces of VMs their switches mirror, and which they do not.

import { byId, keyed, rowMaker, setEmpty, setText, text } from './dom.js';
import { count } from './format.js';
import { t, textOr } from './texts.js';

const POLL_MS = 5000;
const SHOWN_MAX = 200;

const direction = (of) => (cell, found) => {
  setText(cell, textOr(`mirrored.${of(found)}`, of(found)));
  cell.classList.toggle('loss', of(found) === 'no' || of(found) === 'partly');
};

const row = rowMaker([
  { header: true, fill: text((found) => found.virtual_station_name ?? found.virtual_station_uuid ?? '–') },
  { fill: text((found) => found.mac ?? '–') },
  { fill: text((found) => found.host ?? '–') },
  { fill: text((found) => `${found.bridge} / ${found.interface}`) },
  { className: 'number', fill: text((found) => found.vlan ?? '–') },
  { fill: direction((found) => found.sent) },
  { fill: direction((found) => found.received) },
  { fill: text((found) => found.mirrors.join(', ') || '–') },
]);

let newest = null;

/** How many interfaces of all switches have this coverage. */
const sum = (coverage) => newest.switches.reduce((all, one) => all + (one.interfaces[coverage] ?? 0), 0);

/** Draws what was last heard. */
export function showCoverage() {
  if (newest === null) return;
  byId('coverage').hidden = newest.switches.length === 0;
  const counts = ['mirrored', 'one_direction', 'partly', 'not_mirrored'].map((name) => [name, count(sum(name))]);
  setText(byId('coverage-readout'), t('coverage.line', Object.fromEntries(counts)));
  const mute = newest.switches.filter((one) => !one.live).map((one) => one.source);
  setEmpty(byId('coverage-old'), mute.length > 0 ? t('coverage.old', { sources: mute.join(', ') }) : null);
  const key = (found) => `${found.source} ${found.bridge} ${found.port} ${found.interface}`;
  keyed(byId('coverage-rows'), newest.items, key, row);
  const rest = newest.total - newest.items.length;
  setEmpty(byId('coverage-rest'), rest > 0 ? t('coverage.rest', { rest: count(rest) }) : null);
}

/** Asks for it again and again; what is not answered is asked again later. */
export function startCoverage() {
  const ask = async () => {
    try {
      const answer = await fetch(`/api/v1/coverage?limit=${SHOWN_MAX}`);
      if (answer.ok) newest = await answer.json();
      showCoverage();
    } catch {
      // The page says elsewhere that the probe does not answer.
    }
    setTimeout(ask, POLL_MS);
  };
  ask();
}
