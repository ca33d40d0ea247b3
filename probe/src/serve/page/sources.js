// Who says who is who: the sources of the inventory, and addresses that several VMs claim.

import { byId, keyed, rowMaker, setEmpty, setText, text } from './dom.js';
import { count, dateTime } from './format.js';
import { t, textOr } from './texts.js';

const POLL_MS = 5000;

const since = (ns) => (ns === null ? '–' : dateTime(ns));

const rejected = (source) => Object.values(source.rejected).reduce((sum, changes) => sum + changes, 0);

const sourceRow = rowMaker([
  { header: true, fill: text((source) => source.name) },
  {
    fill: (cell, source) => {
      setText(cell, textOr(`source.${source.state}`, source.state));
      cell.classList.toggle('loss', source.state === 'failed' || source.state === 'stale');
    },
  },
  { fill: text((source) => since(source.last_heard_ns)) },
  { fill: text((source) => since(source.last_change_ns)) },
  { className: 'number', fill: text((source) => count(source.changes)) },
  {
    className: 'number',
    fill: (cell, source) => {
      setText(cell, count(rejected(source)));
      cell.classList.toggle('loss', rejected(source) > 0);
    },
  },
  { fill: text((source) => source.last_error ?? '–') },
]);

const claimRow = rowMaker([
  { header: true, fill: text((conflict) => `${conflict.claimed} (${conflict.address_space})`) },
  { fill: text((conflict) => conflict.attributed ?? '–') },
  { fill: text((conflict) => conflict.claimants.join(', ')) },
]);

let newest = null;

/** Draws what was last heard of the sources. */
export function showSources() {
  if (newest === null) return;
  byId('sources').hidden = newest.sources.length === 0;
  setText(byId('sources-readout'), t('sources.line', { vms: count(newest.vms), learned: count(newest.learned), conflicts: count(newest.conflicts) }));
  keyed(byId('source-rows'), newest.sources, (source) => source.name, sourceRow);
  keyed(byId('claim-rows'), newest.conflict_list, (one) => `${one.claimed} ${one.address_space} ${one.valid_from_ns}`, claimRow);
  setEmpty(byId('claims-empty'), newest.conflict_list.length === 0 ? t('claims.empty') : null);
}

/** Asks for them again and again; what is not answered is asked again later. */
export function startSources() {
  const ask = async () => {
    try {
      const answer = await fetch('/api/v1/inventory');
      if (answer.ok) newest = await answer.json();
      showSources();
    } catch {
      // The page says elsewhere that the probe does not answer.
    }
    setTimeout(ask, POLL_MS);
  };
  ask();
}
