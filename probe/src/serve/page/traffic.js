// Classes of traffic and protocols: shares of the last window.

import { byId, element, keyed, rowMaker, setAttribute, setBar, setText, text } from './dom.js';
import { bitRate, percent, si } from './format.js';
import { t } from './texts.js';

const CLASSES = ['east_west', 'inter_tenant', 'north_south', 'transit'];

function fillClass(cell, item) {
  if (!cell.parts) {
    cell.parts = { dot: element('span', `swatch class-${item.name}`), name: element('span') };
    cell.append(cell.parts.dot, cell.parts.name);
  }
  setText(cell.parts.name, t(`class.${item.name}`));
  setAttribute(cell, 'title', t(`class.${item.name}.meaning`));
}

const classRow = rowMaker([
  { header: true, fill: fillClass },
  { className: 'number', fill: text((item) => percent(item.share)) },
  { className: 'number', fill: text((item) => si(item.octets * 8 * item.perSecond, '')) },
  { className: 'number', fill: text((item) => si(item.packets * item.perSecond, '')) },
]);

const protocolRow = rowMaker([
  { header: true, fill: text((item) => item.name) },
  { className: 'wide', fill: (cell, item) => setBar(cell, item.share * 100, percent(item.share)) },
  { className: 'number', fill: text((item) => bitRate(item.octets * item.perSecond)) },
]);

/** Shows classes and protocols; shares are of octets. */
export function showTraffic(snapshot, perSecond) {
  const volumes = CLASSES.map((name) => ({ name, perSecond, ...snapshot.by_class[name] }));
  const octets = volumes.reduce((sum, volume) => sum + volume.octets, 0);
  for (const volume of volumes) volume.share = octets > 0 ? volume.octets / octets : 0;
  keyed(byId('classes'), volumes, (item) => item.name, classRow);
  showStack(volumes);
  const protocols = snapshot.by_protocol.slice(0, 6);
  byId('protocols-title').hidden = protocols.length === 0;
  const all = snapshot.by_protocol.reduce((sum, protocol) => sum + protocol.octets, 0);
  const shares = protocols.map((item) => ({ ...item, perSecond, share: all > 0 ? item.octets / all : 0 }));
  keyed(byId('protocols'), shares, (item) => item.name, protocolRow);
}

function showStack(volumes) {
  const bar = byId('class-bar');
  keyed(bar, volumes, (item) => item.name, (item) => {
    const node = element('span', `class-${item.name}`);
    return { node, update: ({ share }) => { node.style.flexGrow = share.toFixed(4); } };
  });
  const words = volumes.map((item) => `${t(`class.${item.name}`)} ${percent(item.share)}`);
  setAttribute(bar, 'aria-label', words.join(', '));
}
