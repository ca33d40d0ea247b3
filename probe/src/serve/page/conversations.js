// Top conversations: who talks to whom, with filter and sort.

import { byId, element, keyed, rowMaker, setAttribute, setBar, setEmpty, setText, text } from './dom.js';
import { bitRate, count, si } from './format.js';
import { t, textOr } from './texts.js';

const TINTS = 8;
const TEXT_COLUMNS = new Set(['source', 'destination', 'service', 'class']);

let snapshot = null;
let perSecond = 1;
let sort = { column: 'total', descending: true };

const total = (row) => row.octet_delta_count + row.reverse_octet_delta_count;
const packets = (row) => row.packet_delta_count + row.reverse_packet_delta_count;

function service(row) {
  const port = row.destination_port > 0 ? `${row.protocol}/${row.destination_port}` : row.protocol;
  return row.application_name ? `${row.application_name} · ${port}` : port;
}

const className = (row) => textOr(`class.${row.traffic_class}`, row.traffic_class);

const VALUES = {
  source: (row) => `${row.source_virtual_station_name ?? '\uffff'} ${row.source_address}`,
  destination: (row) => `${row.destination_virtual_station_name ?? '\uffff'} ${row.destination_address}`,
  service,
  class: className,
  total,
  forward: (row) => row.octet_delta_count,
  reverse: (row) => row.reverse_octet_delta_count,
  packets,
  flows: (row) => row.flows,
};

const tints = new Map();

/** A tenant keeps its tint for as long as the page is open; the first eight differ. */
function tint(name) {
  if (!tints.has(name)) tints.set(name, tints.size % TINTS);
  return tints.get(name);
}

function fillEndpoint(side) {
  return (cell, row) => {
    if (!cell.parts) {
      const name = element('bdi', 'vm');
      const tenant = element('bdi', 'tenant');
      const address = element('bdi', 'address');
      cell.append(element('span', 'vm-line', name, tenant), address);
      cell.parts = { name, tenant, address };
    }
    const vm = row[`${side}_virtual_station_name`];
    const tenant = row[`${side}_virtual_station_tenant`];
    const address = row[`${side}_address`];
    setText(cell.parts.name, vm ?? address);
    cell.parts.name.classList.toggle('unnamed', vm === null);
    cell.parts.tenant.hidden = !tenant;
    if (tenant) {
      setText(cell.parts.tenant, tenant);
      setAttribute(cell.parts.tenant, 'data-tint', tint(tenant));
    }
    setText(cell.parts.address, vm === null ? t('vm.unknown') : address);
    setAttribute(cell, 'title', row[`${side}_virtual_station_uuid`] ?? address);
  };
}

function fillService(cell, row) {
  if (!cell.parts) {
    cell.parts = { name: element('bdi', 'service'), segment: element('bdi', 'address') };
    cell.append(cell.parts.name, cell.parts.segment);
  }
  setText(cell.parts.name, service(row));
  setText(cell.parts.segment, row.segment);
}

function fillClass(cell, row) {
  if (!cell.parts) {
    cell.parts = { dot: element('span', 'swatch'), name: element('span') };
    cell.append(element('span', 'class-name', cell.parts.dot, cell.parts.name));
  }
  cell.parts.dot.className = `swatch class-${row.traffic_class}`;
  setText(cell.parts.name, className(row));
}

const rowOf = rowMaker([
  { className: 'endpoint source', fill: fillEndpoint('source') },
  { className: 'endpoint destination', fill: fillEndpoint('destination') },
  { className: 'service-cell', fill: fillService },
  { className: 'class-cell', fill: fillClass },
  {
    className: 'number total',
    fill: (cell, row) => setBar(cell, (100 * total(row)) / row.largest, bitRate(total(row) * perSecond)),
  },
  { className: 'number forward', fill: text((row) => bitRate(row.octet_delta_count * perSecond)) },
  { className: 'number reverse', fill: text((row) => bitRate(row.reverse_octet_delta_count * perSecond)) },
  { className: 'number packets', fill: text((row) => si(packets(row) * perSecond, '')) },
  { className: 'number flows', fill: text((row) => count(row.flows)) },
]);

const identity = (row) => [
  row.segment, row.source_address, row.destination_address, row.protocol_identifier,
  row.destination_port, row.source_virtual_station_uuid, row.destination_virtual_station_uuid,
].join('\u0000');

function searchable(row) {
  return [
    row.source_virtual_station_name, row.source_virtual_station_tenant, row.source_address,
    row.source_virtual_station_uuid, row.destination_virtual_station_name,
    row.destination_virtual_station_tenant, row.destination_address,
    row.destination_virtual_station_uuid, service(row), className(row), row.segment,
  ].join('\n').toLowerCase();
}

function compare(left, right) {
  const [a, b] = [VALUES[sort.column](left), VALUES[sort.column](right)];
  const order = TEXT_COLUMNS.has(sort.column) ? String(a).localeCompare(String(b), 'en', { numeric: true }) : a - b;
  return (sort.descending ? -order : order) || total(right) - total(left);
}

function show() {
  for (const header of document.querySelectorAll('#conversation-table th[data-sort]')) {
    const chosen = header.dataset.sort === sort.column;
    setAttribute(header, 'aria-sort', chosen ? (sort.descending ? 'descending' : 'ascending') : null);
  }
  if (!snapshot) return;
  const all = snapshot.top_conversations;
  const wanted = byId('filter').value.trim().toLowerCase();
  const largest = Math.max(1, ...all.map(total));
  const rows = all.filter((row) => searchable(row).includes(wanted)).sort(compare);
  keyed(byId('conversation-rows'), rows.map((row) => ({ ...row, largest })), identity, rowOf);
  const key = wanted ? 'conversations.filtered' : 'conversations.count';
  setText(byId('conversations-count'), t(key, { shown: rows.length, total: all.length }));
  const nothing = all.length === 0 ? t('conversations.empty') : t('conversations.none');
  setEmpty(byId('conversations-empty'), rows.length === 0 ? nothing : null);
  byId('conversation-table').hidden = all.length === 0;
}

/** Shows the conversations of a snapshot. */
export function showConversations(live, windowsPerSecond) {
  snapshot = live;
  perSecond = windowsPerSecond;
  show();
}

/** Connects filter box and column headers. */
export function startConversations() {
  byId('filter').addEventListener('input', show);
  for (const header of document.querySelectorAll('#conversation-table th[data-sort]')) {
    header.querySelector('button').addEventListener('click', () => {
      const column = header.dataset.sort;
      const again = sort.column === column;
      sort = { column, descending: again ? !sort.descending : !TEXT_COLUMNS.has(column) };
      show();
    });
  }
}
