// Nodes and texts. Data reaches the document as text only, never as markup.

/** A new element with class and children (nodes or strings). */
export function element(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

/** A new SVG element with attributes. */
export function svg(tag, attributes) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes ?? {})) node.setAttribute(name, value);
  return node;
}

export const byId = (id) => document.getElementById(id);

/** Sets text only where it differs, so that a selection survives. */
export function setText(node, text) {
  const value = String(text);
  if (node.textContent !== value) node.textContent = value;
}

/** Sets an attribute only where it differs; null takes it away. */
export function setAttribute(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, String(value));
}

/**
 * Shows `items` as children of `parent`, one node a key. `make` returns `{ node, update }`;
 * nodes of known keys are kept, so that hover, focus and selection stay where they are.
 */
export function keyed(parent, items, keyOf, make) {
  const known = parent.keyed ?? new Map();
  const shown = new Map();
  for (const item of items) {
    let key = keyOf(item);
    while (shown.has(key)) key += '+';
    const part = known.get(key) ?? make(item);
    part.update(item);
    shown.set(key, part);
  }
  for (const [key, part] of known) if (!shown.has(key)) part.node.remove();
  let place = parent.firstElementChild;
  for (const { node } of shown.values()) {
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
  }
  parent.keyed = shown;
}

/** A row of cells. `columns` is a list of `{ className, header, make }`; `make` gives a cell's
 * filler: a function that takes cell and item. */
export function rowMaker(columns) {
  return () => {
    const node = element('tr');
    node.setAttribute('role', 'row'); // kept where a narrow screen shows rows as cards
    const cells = columns.map(({ className, header }) => {
      const cell = element(header ? 'th' : 'td', className);
      if (header) cell.scope = 'row';
      cell.setAttribute('role', header ? 'rowheader' : 'cell');
      node.append(cell);
      return cell;
    });
    const update = (item) => columns.forEach(({ fill }, place) => fill(cells[place], item, node));
    return { node, update };
  };
}

/** A cell filler that shows one text. */
export const text = (of) => (cell, item) => setText(cell, of(item));

/** A horizontal bar from 0 to 100 with its value beside it. */
export function setBar(cell, percent, label, level) {
  if (!cell.bar) {
    const fill = element('span', 'bar-fill');
    const track = element('span', 'bar', fill);
    track.setAttribute('aria-hidden', 'true');
    const value = element('span', 'bar-value');
    cell.append(element('span', 'bar-box', track, value));
    cell.bar = { fill, value };
  }
  const width = Math.max(0, Math.min(100, percent || 0));
  cell.bar.fill.style.width = `${width.toFixed(1)}%`;
  setAttribute(cell.bar.fill, 'data-level', level ?? 'calm');
  setText(cell.bar.value, label);
}

/** Shows `message` instead of an empty list; null hides it. */
export function setEmpty(node, message) {
  node.hidden = message === null;
  if (message !== null) setText(node, message);
}
