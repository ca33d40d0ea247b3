// Load of queues and workers.

import { byId, keyed, rowMaker, setBar, setEmpty, setText, text } from './dom.js';
import { percent, si } from './format.js';
import { t } from './texts.js';

const HIGH_PERCENT = 75;
const FULL_PERCENT = 95;

const level = (value) => (value >= FULL_PERCENT ? 'full' : value >= HIGH_PERCENT ? 'high' : 'calm');

const bar = (of, write) => (cell, item) => {
  const value = of(item);
  setBar(cell, value, write ? write(item) : `${value.toFixed(0)}\u202f%`, level(value));
};

const tableFill = (worker) => (100 * worker.flows) / Math.max(1, worker.flow_slots);

const placeOf = (worker) => {
  if (worker.port === null) return t('worker.owner');
  // Files have no queues.
  if (worker.queue === null) return worker.port;
  return t('worker.queue', { port: worker.port, queue: worker.queue });
};

const workerRow = rowMaker([
  { header: true, fill: text((worker) => worker.worker) },
  { fill: text((worker) => worker.core ?? '–') },
  {
    fill: text(placeOf),
  },
  { className: 'number', fill: text((worker) => si(worker.packets_per_s, '')) },
  { className: 'meter', fill: bar((worker) => worker.busy_percent) },
  { className: 'meter', fill: bar((worker) => worker.ring_fill_percent) },
  {
    className: 'meter long',
    fill: bar(tableFill, (worker) => `${si(worker.flows, '')} / ${si(worker.flow_slots, '')}`),
  },
  { className: 'number', fill: text((worker) => si(worker.spread_in, '')) },
  { className: 'number', fill: text((worker) => si(worker.spread_out, '')) },
  {
    className: 'number',
    fill: (cell, worker) => {
      setText(cell, percent(worker.shed_rate));
      cell.classList.toggle('loss', worker.shed_rate > 0);
    },
  },
]);

/** Shows each worker's load. */
export function showWorkers(snapshot) {
  keyed(byId('worker-rows'), snapshot.workers, (worker) => String(worker.worker), workerRow);
  setEmpty(byId('workers-empty'), snapshot.workers.length === 0 ? t('workers.empty') : null);
}
