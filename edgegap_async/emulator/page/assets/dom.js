// Makes elements. Every text becomes a text node: nothing here, or elsewhere in the page, reads a
// text as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

// Returns an element. A property `onclick` is a listener, any other an attribute.
export function h(tag, properties, ...children) {
  return fill(document.createElement(tag), properties, children);
}

// Returns an SVG element.
export function svg(tag, properties, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

// Sets a text if it differs, so that an unchanged element costs no layout.
export function setText(element, text) {
  const value = text === null || text === undefined ? "" : String(text);
  if (element.textContent !== value) element.textContent = value;
}

// Makes elements the children of a parent. Those that are in their place already stay: an element
// that leaves the document and comes back costs style and layout.
export function place(parent, elements) {
  const wanted = new Set(elements);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  let next = parent.firstElementChild;
  for (const element of elements) {
    if (element === next) next = next.nextElementSibling;
    else parent.insertBefore(element, next);
  }
}

// Returns a button that copies a text, and says so.
export function copyButton(text, what) {
  const label = h("span", null, "Copy");
  const button = h(
    "button",
    {
      type: "button",
      class: "small",
      "aria-label": `Copy ${what}`,
      onclick: async () => {
        try {
          await navigator.clipboard.writeText(text);
          label.textContent = "Copied";
        } catch {
          label.textContent = "Select it"; // no clipboard without HTTPS, but on loopback
        }
        setTimeout(() => (label.textContent = "Copy"), 1500);
      },
    },
    label,
  );
  return button;
}

// ── words for numbers ──────────────────────────────────────────────────────────────────────────

// Returns a duration as people read it: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`.
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "";
  if (seconds < 10) return `${Math.max(0, seconds).toFixed(1)} s`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// Returns bytes as people read them.
export function bytes(count) {
  if (count < 1000) return `${Math.round(count)} B`;
  const units = ["kB", "MB", "GB", "TB"];
  let unit = -1;
  do {
    count /= 1000;
    unit += 1;
  } while (count >= 1000 && unit < units.length - 1);
  return `${count < 10 ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
}

// Returns the time of day of a moment in milliseconds.
export function clockTime(milliseconds) {
  return new Date(milliseconds).toTimeString().slice(0, 8);
}

// ── statuses ───────────────────────────────────────────────────────────────────────────────────

// The phase of each status, in the order in which statuses follow each other.
export const PHASES = {
  INITIALIZING: "seeking",
  SEEKING: "seeking",
  SEEKED: "seeking",
  SCANNING: "seeking",
  DEPLOYING: "deploying",
  READY: "ready",
  TERMINATING: "ending",
  TERMINATED: "ended",
  ERROR: "error",
};

// Returns the phase of a status, which decides its colour.
export function phaseOf(status) {
  return PHASES[status] ?? "seeking";
}

export function statusChip(status) {
  return setStatus(h("span", { class: "chip" }), status);
}

// Shows another status in a chip.
export function setStatus(chip, status) {
  chip.dataset.phase = phaseOf(status);
  setText(chip, status);
  return chip;
}
