// The numbers on top: deployments by phase. A tile filters the table.

import { h, phaseOf, setText } from "./dom.js";
import { store } from "./store.js";

const PHASES = [
  ["", "Live"],
  ["ready", "Ready"],
  ["deploying", "Deploying"],
  ["seeking", "Finding a location"],
  ["error", "Error"],
  ["ending", "Ending"],
];

export function tiles(onChoose) {
  let chosen = "";
  const parts = PHASES.map(([phase, name]) => {
    const number = h("span", { class: "tile-number" }, "0");
    const button = h(
      "button",
      { type: "button", class: "tile", "data-phase": phase, "aria-pressed": "false" },
      number,
      h("span", { class: "tile-name" }, name),
    );
    button.addEventListener("click", () => {
      chosen = chosen === phase ? "" : phase;
      for (const part of parts) {
        part.button.setAttribute("aria-pressed", String(chosen !== "" && part.phase === chosen));
      }
      onChoose(chosen);
    });
    return { phase, number, button };
  });

  const perSecond = h("span", { class: "tile-number" }, "0");
  const total = h("span", { class: "tile-name" }, "calls a second");
  const calls = h("div", { class: "tile tile-still" }, perSecond, total);

  function render() {
    const counts = { "": 0 };
    for (const row of store.deployments.values()) {
      const phase = phaseOf(row.status);
      counts[phase] = (counts[phase] ?? 0) + 1;
      if (phase !== "ended") counts[""] += 1;
    }
    for (const part of parts) setText(part.number, counts[part.phase] ?? 0);
    const second = store.seconds.get(store.second);
    const isRecent = second && Date.now() / 1000 - second.at < 4;
    setText(perSecond, isRecent ? sum(second.calls) + sum(second.refused) : 0);
    setText(total, `calls a second, ${store.total.toLocaleString("en")} in all`);
  }

  const element = h(
    "section",
    { class: "tiles", "aria-label": "Deployments by status" },
    parts.map((part) => part.button),
    calls,
  );
  return { element, render };
}

function sum(counts) {
  return Object.values(counts).reduce((one, other) => one + other, 0);
}
