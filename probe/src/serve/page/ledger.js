// The ledger: received = accounted + in flight + causes, and nothing unaccounted.

import { byId, element, keyed, rowMaker, setAttribute, setEmpty, setText, text } from './dom.js';
import { count, percent } from './format.js';
import { t, textOr } from './texts.js';

function fillCause(cell, item) {
  if (!cell.parts) {
    cell.parts = { name: element('span', 'cause'), meaning: element('span', 'meaning') };
    cell.append(cell.parts.name, cell.parts.meaning);
  }
  setText(cell.parts.name, textOr(`cause.${item.cause}.name`, item.cause));
  setText(cell.parts.meaning, textOr(`cause.${item.cause}.meaning`, ''));
  setAttribute(cell, 'title', item.cause);
}

const causeRow = rowMaker([
  { header: true, fill: fillCause },
  { className: 'number', fill: text((item) => count(item.packets)) },
  { className: 'number', fill: text((item) => percent(item.share)) },
]);

/** A count that is a loss when it is not 0. */
const loss = (of) => (cell, item) => {
  setText(cell, count(of(item)));
  cell.classList.toggle('loss', of(item) > 0);
};

const portRow = rowMaker([
  { header: true, fill: text((port) => port.port) },
  { className: 'number', fill: text((port) => count(port.received)) },
  { className: 'number', fill: loss((port) => port.missed) },
  { className: 'number', fill: loss((port) => port.errors) },
  { className: 'number', fill: loss((port) => port.no_mbuf) },
]);

function fillState(cell, sink) {
  setText(cell, textOr(`store.${sink.state}`, sink.state));
  setAttribute(cell, 'title', sink.problem ?? '');
  cell.classList.toggle('loss', !['ok', 'off', 'retired'].includes(sink.state));
}

const sinkRow = rowMaker([
  { header: true, fill: text((sink) => sink.name) },
  { className: 'number', fill: text((sink) => count(sink.made)) },
  { className: 'number', fill: text((sink) => count(sink.delivered)) },
  { className: 'number', fill: text((sink) => count(sink.queued)) },
  { className: 'number', fill: loss((sink) => sink.dropped) },
  { fill: fillState },
]);

/** Shows the balance, its causes, ports and sinks. */
export function showLedger(snapshot) {
  const { ledger } = snapshot;
  const causes = Object.entries(ledger.causes)
    .filter(([, packets]) => packets > 0)
    .map(([cause, packets]) => ({ cause, packets, share: packets / Math.max(1, ledger.received) }))
    .sort((left, right) => right.packets - left.packets || left.cause.localeCompare(right.cause));
  const caused = causes.reduce((sum, { packets }) => sum + packets, 0);
  setText(byId('ledger-received'), count(ledger.received));
  setText(byId('ledger-accounted'), count(ledger.accounted));
  setText(byId('ledger-in-flight'), count(ledger.in_flight));
  setText(byId('ledger-caused'), count(caused));
  setText(byId('ledger-unaccounted'), count(ledger.unaccounted));
  const sound = ledger.unaccounted === 0;
  setAttribute(byId('ledger-verdict'), 'data-sound', sound);
  setText(byId('ledger-verdict-text'), sound ? t('ledger.sound') : t('ledger.broken'));
  keyed(byId('causes'), causes, (item) => item.cause, causeRow);
  setEmpty(byId('causes-empty'), causes.length === 0 ? t('causes.empty') : null);
  keyed(byId('ports'), ledger.nic, (port) => port.port, portRow);
  setEmpty(byId('ports-empty'), ledger.nic.length === 0 ? t('ports.empty') : null);
  keyed(byId('sinks'), ledger.sinks, (sink) => sink.name, sinkRow);
  setEmpty(byId('sinks-empty'), ledger.sinks.length === 0 ? t('sinks.empty') : null);
  showStore(snapshot.store);
}

function showStore(store) {
  const state = textOr(`store.${store.state}`, store.state);
  const line = store.folder === null ? t('store.nowhere') : t('store.line', { folder: store.folder, state });
  setText(byId('store-line'), line);
  const query = byId('store-query');
  query.hidden = !store.query_example;
  setText(query, store.query_example ?? '');
}

/** The tile with what is unaccounted. */
export function showUnaccountedTile(snapshot) {
  const { unaccounted } = snapshot.ledger;
  setText(byId('tile-unaccounted'), count(unaccounted));
  setAttribute(byId('tile-unaccounted-box'), 'data-sound', unaccounted === 0);
  setText(byId('tile-unaccounted-note'), unaccounted === 0 ? t('ledger.sound') : t('ledger.broken'));
}
