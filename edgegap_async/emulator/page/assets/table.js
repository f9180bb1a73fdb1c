// The table of deployments, newest first, with search and filters.

import { call, stopCall } from "./actions.js";
import { PHASES, duration, h, phaseOf, place, setStatus, setText, statusChip } from "./dom.js";
import { store } from "./store.js";

const PAGE = 25; // rows that are shown at first, and with each "more"
const GENERATED = /^(op-[0-9a-z]{17}|key-[a-z2-7]{16})$/; // tags of the Python client: one a deployment

export function deploymentTable(filter) {
  let shown = PAGE;
  let phase = "";
  const rows = new Map(); // the table rows, by request_id

  const search = h("input", {
    type: "search",
    id: "search",
    placeholder: "Search id, application, tag, city",
    "aria-label": "Search deployments",
    autocomplete: "off",
    spellcheck: "false",
  });
  const status = select("Status", "All statuses");
  const application = select("Application", "All applications");
  const tag = select("Tag", "All tags");
  for (const name of Object.keys(PHASES)) status.append(h("option", { value: name }, name));
  const cities = h("button", { type: "button", class: "small filter-place", hidden: true });
  const count = h("p", { class: "count", "aria-live": "off" });
  const body = h("tbody");
  const more = h("button", { type: "button", class: "more", hidden: true });
  const empty = h(
    "div",
    { class: "empty", hidden: true },
    h("p", null, "Nothing is deployed."),
    h("p", { class: "muted" }, "Press Deploy, or deploy with a client: rows appear by themselves."),
  );
  const none = h("div", { class: "empty", hidden: true }, "No deployment passes the filters.");

  const change = () => {
    filter.text = search.value.trim().toLowerCase();
    filter.status = status.value;
    filter.application = application.value;
    filter.tag = tag.value;
    shown = PAGE;
    render();
  };
  search.addEventListener("input", change);
  for (const each of [status, application, tag]) each.addEventListener("change", change);
  cities.addEventListener("click", () => setCities(null));
  more.addEventListener("click", () => {
    shown += PAGE;
    render();
  });

  function setCities(names) {
    filter.cities = names;
    cities.hidden = names === null;
    setText(cities, names ? `${names.join(", ")} ×` : "");
    if (names) cities.setAttribute("aria-label", `Show other cities than ${names.join(", ")} too`);
    shown = PAGE;
    render();
  }

  function setPhase(chosen) {
    phase = chosen;
    shown = PAGE;
    render();
  }

  function passes(row) {
    return (
      (!phase || phaseOf(row.status) === phase) &&
      (!filter.status || row.status === filter.status) &&
      (!filter.application || `${row.application} ${row.version}` === filter.application) &&
      (!filter.tag || row.tags.includes(filter.tag)) &&
      (!filter.cities || filter.cities.includes(row.city)) &&
      (!filter.text || row.search.includes(filter.text))
    );
  }

  function render() {
    const chosen = [];
    let matching = 0;
    const applications = new Set();
    const tags = new Set();
    for (const id of store.order) {
      const row = store.deployments.get(id);
      applications.add(`${row.application} ${row.version}`);
      for (const name of row.tags) if (tags.size < 200 && !GENERATED.test(name)) tags.add(name);
      if (!passes(row)) continue;
      matching += 1;
      if (chosen.length < shown) chosen.push(row);
    }
    updateOptions(application, applications);
    updateOptions(tag, tags);
    placeRows(chosen);
    const all = store.order.length;
    setText(count, matching === all ? `${all}` : `${matching} of ${all}`);
    more.hidden = matching <= chosen.length;
    setText(more, `Show more: ${matching - chosen.length} are not shown`);
    empty.hidden = all > 0;
    none.hidden = all === 0 || matching > 0;
  }

  function placeRows(chosen) {
    const wanted = new Set(chosen.map((row) => row.request_id));
    for (const id of rows.keys()) if (!wanted.has(id)) rows.delete(id);
    for (const row of chosen) {
      let line = rows.get(row.request_id);
      if (line === undefined) {
        line = tableRow(row.request_id);
        rows.set(row.request_id, line);
      }
      line.update(row);
    }
    place(body, chosen.map((row) => rows.get(row.request_id).element));
  }

  setInterval(() => {
    if (document.hidden || element.offsetParent === null) return;
    for (const [id, line] of rows) line.tick(store.deployments.get(id));
  }, 1000);

  const element = h(
    "section",
    { class: "card table-card", "aria-labelledby": "table-title" },
    h(
      "div",
      { class: "card-head" },
      h("h2", { id: "table-title" }, "Deployments"),
      count,
      cities,
      h("div", { class: "filters" }, search, status, application, tag),
    ),
    h(
      "div",
      { class: "table-scroll" },
      h(
        "table",
        { class: "deployments" },
        h(
          "thead",
          null,
          h(
            "tr",
            null,
            h("th", { scope: "col", class: "col-status" }, "Status"),
            h("th", { scope: "col", class: "col-id" }, "Deployment"),
            h("th", { scope: "col", class: "col-tags" }, "Tags"),
            h("th", { scope: "col", class: "col-city" }, "Location"),
            h("th", { scope: "col", class: "col-ports" }, "Ports"),
            h("th", { scope: "col", class: "col-age" }, "In status"),
            h("th", { scope: "col", class: "col-do" }, h("span", { class: "visually-hidden" }, "Actions")),
          ),
        ),
        body,
      ),
      empty,
      none,
    ),
    more,
  );
  return { element, render, setCities, setPhase };
}

function select(label, all) {
  return h("select", { "aria-label": label }, h("option", { value: "" }, all));
}

// Keeps the options of a filter as the values that there are; the chosen one stays.
function updateOptions(element, values) {
  const sorted = [...values].sort();
  if (element.known?.length === sorted.length && element.known.every((one, at) => one === sorted[at])) {
    return;
  }
  element.known = sorted;
  const chosen = element.value;
  if (chosen && !values.has(chosen)) sorted.push(chosen);
  element.replaceChildren(element.firstElementChild, ...sorted.map((one) => h("option", { value: one }, one)));
  element.value = chosen;
}

function tableRow(id) {
  const chip = statusChip("");
  const name = h("span");
  const [where, numbers] = ["row-city", "row-ports"].map((one) => h("span", { class: one })); // in a narrow table
  const tags = h("td", { class: "col-tags" });
  const city = h("td", { class: "col-city" });
  const ports = h("td", { class: "col-ports" });
  const age = h("td", { class: "col-age" });
  const stop = h("button", { type: "button", class: "small", "aria-label": `Stop ${id}` }, "Stop");
  stop.addEventListener("click", () => call(stopCall(id)));
  const problem = h("span", { class: "row-problem" });
  const element = h(
    "tr",
    { "data-id": id },
    h("td", { class: "col-status" }, chip),
    h(
      "td",
      { class: "col-id" },
      h("a", { href: `#/deployments/${encodeURIComponent(id)}`, class: "row-id" }, id),
      h("span", { class: "row-app" }, name, where, numbers),
      problem,
    ),
    tags,
    city,
    ports,
    age,
    h("td", { class: "col-do" }, stop),
  );
  let stamp = -1;
  let shownTags = "";

  function update(row) {
    if (row.stamp === stamp) return;
    stamp = row.stamp;
    setStatus(chip, row.status);
    setText(name, `${row.application} ${row.version}`);
    setText(problem, row.error_detail);
    setText(city, row.is_placed ? row.city : "–");
    const open = row.is_placed ? Object.values(row.ports).join(", ") : "";
    setText(ports, open || "–");
    setText(where, row.is_placed ? ` · ${row.city}` : "");
    setText(numbers, open ? ` · ${open}` : "");
    const text = row.tags.join("\n");
    if (text !== shownTags) {
      shownTags = text;
      tags.replaceChildren(...row.tags.map((tag) => h("span", { class: "tag", "data-generated": GENERATED.test(tag) }, tag)));
    }
    const isOver = row.status === "TERMINATED" || row.status === "TERMINATING";
    stop.hidden = isOver;
    stop.disabled = row.is_stop_requested && row.status !== "ERROR";
    setText(stop, stop.disabled ? "Stopping" : "Stop");
    element.classList.toggle("is-over", row.status === "TERMINATED");
    tick(row);
  }

  function tick(row) {
    if (row) setText(age, duration((Date.now() - row.since) / 1000));
  }

  return { element, update, tick };
}
