// What happens around the deployments: rates, faults, calls, webhooks.

import { call, clearFaultsCall } from "./actions.js";
import { rateChart } from "./charts.js";
import { clockTime, h, place } from "./dom.js";
import { store } from "./store.js";

const SECONDS = 60;
const SHOWN = 40; // rows of calls and webhooks
const ALWAYS = ["deploy", "get_deployment", "list_deployments"]; // rates that are always shown

export function activity() {
  return { rates: rates(), faults: faults(), calls: calls(), webhooks: webhooks() };
}

function card(title, id, ...children) {
  return h(
    "section",
    { class: "card", "aria-labelledby": id },
    h("div", { class: "card-head" }, h("h2", { id }, title)),
    ...children,
  );
}

// ── rates ──────────────────────────────────────────────────────────────────────────────────────

function rates() {
  const charts = new Map(); // by operation
  const list = h("div", { class: "rates" });
  const element = card("Calls a second, and their limits", "rates-title", list);
  element.firstElementChild.append(h("span", { class: "count" }, "last minute"));
  let drawn = -1;
  let limits = null;

  function render() {
    const second = newestSecond();
    if (second === drawn && limits === store.limits) return;
    drawn = second;
    limits = store.limits;
    const names = new Set(ALWAYS);
    for (const one of store.seconds.values()) {
      for (const name of [...Object.keys(one.calls), ...Object.keys(one.refused)]) names.add(name);
    }
    for (const name of names) {
      if (!charts.has(name)) {
        const chart = rateChart(name || "unknown paths");
        charts.set(name, chart);
        list.append(chart.element);
      }
      const counts = [];
      for (let at = second - SECONDS + 1; at <= second; at += 1) {
        const one = store.seconds.get(at);
        counts.push([one?.calls[name] ?? 0, one?.refused[name] ?? 0]);
      }
      charts.get(name).render(counts, store.limits[name]);
    }
  }
  return { element, render };
}

// The newest complete second: seconds without a call are not sent.
function newestSecond() {
  const newest = store.seconds.get(store.second);
  if (!newest) return store.second;
  return store.second + Math.max(0, Math.floor(Date.now() / 1000 - newest.at) - 2);
}

// ── faults ─────────────────────────────────────────────────────────────────────────────────────

function faults() {
  const list = h("ul", { class: "fault-list" });
  const empty = h("p", { class: "muted" }, "No fault is scripted: every call succeeds.");
  const clear = h(
    "button",
    { type: "button", class: "small", hidden: true, onclick: () => call(clearFaultsCall) },
    "Remove all",
  );
  const box = h(
    "div",
    { class: "table-scroll short", tabindex: "0", role: "group", "aria-labelledby": "faults-title", hidden: true },
    list,
  );
  const element = card("Faults to come", "faults-title", empty, box, clear);
  let drawn = null;

  function render() {
    if (drawn === store.faults) return;
    drawn = store.faults;
    empty.hidden = store.faults.length > 0;
    box.hidden = clear.hidden = store.faults.length === 0;
    list.replaceChildren(
      ...store.faults.slice(0, 50).map((fault) => {
        const { name, ...fields } = fault.effect;
        const values = Object.entries(fields)
          .filter(([, value]) => ["number", "string"].includes(typeof value))
          .map(([key, value]) => `${key} ${value}`)
          .join(", ");
        const often = fault.times === "forever" ? "for ever" : `${fault.times} ×`;
        const times = fault.share < 1 ? `${often}, ${Math.round(fault.share * 100)} % of them` : often;
        return h(
          "li",
          null,
          h("b", { class: "fault-mark" }, name),
          h("span", null, ` ${fault.operation ?? "every call"}`),
          h("span", { class: "muted" }, ` ${times}${values ? `, ${values}` : ""}`),
        );
      }),
    );
  }
  return { element, render };
}

// ── calls, webhooks ────────────────────────────────────────────────────────────────────────────

function activityTable(title, id, columns, source, makeRow, nothing) {
  const body = h("tbody");
  const empty = h("p", { class: "empty muted" }, nothing);
  const element = card(
    title,
    id,
    h(
      "div",
      { class: "table-scroll short", tabindex: "0", role: "group", "aria-labelledby": id },
      h(
        "table",
        { class: "activity" },
        h("thead", null, h("tr", null, columns.map((name) => h("th", { scope: "col" }, name)))),
        body,
      ),
      empty,
    ),
  );
  let drawn = null;

  function render() {
    const list = source();
    if (drawn === list) return;
    drawn = list;
    empty.hidden = list.length > 0;
    const known = new Map([...body.children].map((line) => [line.of, line]));
    const rows = list.slice(0, SHOWN);
    place(body, rows.map((one) => known.get(one) ?? Object.assign(makeRow(one), { of: one })));
  }
  return { element, render };
}

export function callRow(one) {
  const at = one.received_at * 1000;
  return h(
    "tr",
    { "data-bad": one.status >= 400 || one.fault !== null },
    h("td", { class: "num" }, clockTime(at)),
    h("td", { class: "code", "data-good": one.status < 400 }, String(one.status)),
    h(
      "td",
      { class: "wide" },
      h("span", { class: "method" }, one.method),
      h("span", { class: "path" }, ` ${one.path} `),
      one.fault ? h("b", { class: "fault-mark" }, `fault: ${one.fault}`) : null,
    ),
    h("td", { class: "num" }, took(one.duration, 1)),
  );
}

export function webhookRow(one) {
  return h(
    "tr",
    { "data-bad": one.problem !== null || one.status >= 400 },
    h("td", { class: "num" }, clockTime(Date.parse(one.at))),
    h("td", { class: "code", "data-good": one.status !== null && one.status < 400 }, one.status === null ? "–" : String(one.status)),
    h(
      "td",
      { class: "wide" },
      h("span", { class: "method" }, one.kind),
      h("span", { class: "path" }, ` ${one.where} `),
      h("a", { href: `#/deployments/${encodeURIComponent(one.request_id)}` }, one.request_id),
      one.problem ? h("span", { class: "row-problem" }, one.problem) : null,
      one.fault ? h("b", { class: "fault-mark" }, `fault: ${one.fault}`) : null,
    ),
    h("td", { class: "num" }, took(one.seconds, 0)),
  );
}

function took(seconds, digits) {
  return seconds < 1 ? `${(seconds * 1000).toFixed(digits)} ms` : `${seconds.toFixed(1)} s`;
}

function calls() {
  const columns = ["Time", "Status", "Call", "Took"];
  return activityTable("Calls", "calls-title", columns, () => store.calls, callRow, "No call has come.");
}

function webhooks() {
  const columns = ["Time", "Status", "Webhook", "Took"];
  const nothing = "No webhook was sent.";
  return activityTable("Webhooks", "webhooks-title", columns, () => store.webhooks, webhookRow, nothing);
}
