// VMs that went to another host, as reported and as seen in the traffic.

import { byId, keyed, rowMaker, setEmpty, setText, text } from './dom.js';
import { count, dateTime, duration } from './format.js';
import { twoLines } from './taps.js';
import { t } from './texts.js';

const SHOWN_MAX = 20;

const who = (migration) => migration.virtual_station_name ?? migration.address ?? migration.mac ?? '–';

/** Tenant and address, without repeating what stands above them. */
const where = (migration) => [
  migration.virtual_station_tenant,
  migration.virtual_station_name === null ? migration.segment : migration.address,
].filter(Boolean).join(' · ');

/** A host, with the tap where traffic shows it. */
const place = (side) => twoLines(
  (migration) => migration[`${side}_host`] ?? migration[`${side}_tap`] ?? '–',
  (migration) => (migration[`${side}_host`] === null ? '' : migration[`${side}_tap`] ?? ''),
);

function known(migration) {
  if (migration.reported_by === null) return t('migration.detected');
  const reported = t('migration.reported', { source: migration.reported_by });
  return migration.detected ? `${reported} · ${t('migration.detected')}` : reported;
}

/** Not all packets may have been followed, so it may be shorter. */
const blackout = (migration) => {
  if (migration.blackout_ns === null) return '–';
  return migration.estimate ? `≤ ${duration(migration.blackout_ns)}` : duration(migration.blackout_ns);
};

const bound = (migration) =>
  (migration.blackout_clock_bound_ns === null ? '' : `± ${duration(migration.blackout_clock_bound_ns)}`);

const migrationRow = rowMaker([
  { header: true, className: 'place', fill: twoLines(who, where) },
  { className: 'number', fill: text((migration) => dateTime(migration.time_ns)) },
  { className: 'place', fill: place('from') },
  { className: 'place', fill: place('to') },
  { className: 'number', fill: twoLines(blackout, bound) },
  { className: 'number', fill: text((migration) => (migration.peer_count === null ? '–' : count(migration.peer_count))) },
  { fill: text(known) },
]);

/** Shows the latest migrations. */
export function showMigrations({ migrations }) {
  const shown = migrations.slice(0, SHOWN_MAX);
  setText(byId('migrations-note'), shown.length > 0 ? t('migrations.note', { count: count(migrations.length) }) : '');
  byId('migrations-legend').hidden = shown.length === 0;
  const key = (migration) => `${migration.time_ns}\n${migration.virtual_station_uuid}\n${migration.mac}`;
  keyed(byId('migration-rows'), shown, key, migrationRow);
  setEmpty(byId('migrations-empty'), shown.length === 0 ? t('migrations.none') : null);
}
