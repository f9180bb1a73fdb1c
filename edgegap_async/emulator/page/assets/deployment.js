// The page of one deployment: its time line, ports, location, environment, logs, use of the machine.

import { call, commandBox, crashCall, curl, read, stopCall } from "./actions.js";
import { callRow, webhookRow } from "./activity.js";
import { lineChart } from "./charts.js";
import { bytes, clockTime, copyButton, duration, h, phaseOf, setStatus, setText, statusChip } from "./dom.js";
import { store } from "./store.js";

const LOG_INTERVAL = 400; // milliseconds
const METRICS_INTERVAL = 1000;
const MAX_LOG_CHARACTERS = 400000;
const END_PIXELS = 40; // a log that is scrolled further up is read, and follows no more

export function deploymentView(id) {
  const path = `/_emulator/deployments/${encodeURIComponent(id)}`;
  const heading = h("h1", { tabindex: "-1" }, id);
  const chip = statusChip("");
  chip.hidden = true;
  const what = h("p", { class: "muted" });
  const problem = h("p", { class: "problem", role: "status" });
  const stop = h("button", { type: "button", onclick: () => act(stopCall(id)) }, "Stop");
  const crash = h("button", { type: "button", class: "danger", onclick: () => act(crashCall(id)) }, "Crash");
  const line = timeLine();
  const ports = h("div");
  const place = h("dl", { class: "facts" });
  const resources = h("dl", { class: "facts" });
  const variables = h("div");
  const logs = logView();
  const cpu = lineChart("CPU, percent of one", (value) => `${Math.round(value)} %`);
  const memory = lineChart("Memory", bytes);
  const network = lineChart("Network, in and out", bytes);
  const note = h(
    "p",
    { class: "muted note", hidden: true },
    "Network use is measured for ports with a fixed number and for containers: Linux counts none for a process.",
  );
  const calls = h("tbody");
  const webhooks = h("tbody");
  let isClosed = false;
  let stamp = -1;
  let isReading = false;
  let details = null;

  const actions = h(
    "div",
    { class: "deployment-actions", hidden: true },
    h("div", { class: "button-row" }, stop, crash),
    commandBox(() => `${curl(stopCall(id))}\n\n${curl(crashCall(id))}`, "as commands"),
  );
  const parts = h(
    "div",
    { class: "deployment", hidden: true },
    card("Time line", line.element),
    h(
      "div",
      { class: "thirds" },
      card("Ports", ports),
      card("Location", place),
      card("Resources", resources),
    ),
    h("div", { class: "thirds" }, ...[cpu, memory, network].map((one) => h("section", { class: "card" }, one.element))),
    note,
    h("div", { class: "halves" }, card("Log", logs.element), card("Environment", variables)),
    h(
      "div",
      { class: "halves" },
      card("Calls about it", activityOf(calls, "Calls about this deployment", "No call is remembered.")),
      card("Webhooks", activityOf(webhooks, "Webhooks of this deployment", "No webhook was sent.")),
    ),
  );
  const element = h(
    "div",
    { class: "deployment" },
    h("a", { class: "back", href: "#/" }, "← All deployments"),
    h(
      "div",
      { class: "deployment-head" },
      h("div", null, h("div", { class: "title-row" }, heading, chip, copyButton(id, "the id")), what, problem),
      actions,
    ),
    parts,
  );

  async function act(one) {
    await call(one);
    stamp = -1;
    refresh();
  }

  async function refresh() {
    if (isReading || isClosed) return;
    isReading = true;
    const [found, requests, sent] = await Promise.all([
      read(path),
      read(`/_emulator/requests?limit=40&request_id=${encodeURIComponent(id)}`),
      read("/_emulator/webhooks"),
    ]);
    isReading = false;
    if (isClosed) return;
    if (found) show(found);
    else if (!details) setText(problem, "There is no such deployment, or it ended a while ago.");
    const offset = requests ? Date.now() / 1000 - requests.now : 0; // of the loop's clock
    calls.replaceChildren(
      ...(requests?.requests ?? []).reverse().map((one) => callRow({ ...one, received_at: one.received_at + offset })),
    );
    webhooks.replaceChildren(
      ...(sent?.webhooks ?? []).filter((one) => one.request_id === id).reverse().slice(0, 40).map(webhookRow),
    );
  }

  function show(found) {
    details = found;
    chip.hidden = actions.hidden = parts.hidden = false;
    setStatus(chip, found.status);
    setText(what, `${found.application} ${found.version}${found.tags.length ? ` · ${found.tags.join(", ")}` : ""}`);
    setText(problem, found.error_detail ?? (found.is_stop_requested && found.status !== "TERMINATED" ? "A stop was requested." : ""));
    const isOver = found.status === "TERMINATED" || found.status === "TERMINATING";
    stop.disabled = isOver;
    crash.disabled = found.pid === null || isOver;
    const isGone = found.status === "TERMINATED"; // and with it the log
    setText(logs.empty, isGone ? "The log is gone with the deployment." : "The program has written nothing.");
    line.set(found);
    ports.replaceChildren(portTable(found));
    place.replaceChildren(
      ...facts([
        ["City", found.is_placed ? found.city : "not chosen yet"],
        ["Country", found.is_placed ? found.location.country : null],
        ["Continent", found.is_placed ? found.location.continent : null],
        ["Coordinates", found.is_placed ? found.point.map((one) => one.toFixed(2)).join(", ") : null],
        ["Host", found.host_id],
        ["Fleet", found.fleet],
        ["Players", String(found.user_count)],
      ]),
    );
    resources.replaceChildren(
      ...facts([
        ["CPU units", `${found.cpu_units} of 1024 for a CPU`],
        ["Memory", `${found.memory_mb} MB`],
        ["Longest run", found.max_duration < 0 ? "no end" : `${found.max_duration} min`],
        ["Restarts", found.restart_policy],
        ["Process", found.pid === null ? "none" : String(found.pid)],
        ["Crash", found.crash ? `${found.crash.message ?? ""}` : null],
        ["Webhooks for", found.webhooks.join(", ") || "no status"],
      ]),
    );
    variables.replaceChildren(environmentTable(found.environment));
  }

  async function pollLogs() {
    while (!isClosed) {
      if (!document.hidden && details) {
        const answer = await read(`${path}/logs?after=${logs.position}`);
        if (answer && !isClosed) logs.add(answer);
      }
      await sleep(LOG_INTERVAL);
    }
  }

  async function pollMetrics() {
    while (!isClosed) {
      if (!document.hidden && details) {
        const usage = await read(`${path}/metrics`);
        if (usage && !isClosed) {
          const nothing = store.isSimulated ? "a simulated server is not measured" : "no measurement yet";
          const seconds = usage.times.at(-1) - usage.times[0];
          const span = seconds > 0 ? duration(seconds) : "";
          cpu.render(usage.cpu, nothing, span);
          memory.render(usage.memory, nothing, span);
          const sum = usage.received.map((one, at) => (one === null ? null : one + usage.sent[at]));
          network.render(sum, usage.times.length ? "not measured" : nothing, span);
          note.hidden = !usage.times.length || sum.some((one) => one !== null);
        }
      }
      await sleep(METRICS_INTERVAL);
    }
  }

  const ticking = setInterval(() => line.tick(), 200);

  function render() {
    const row = store.deployments.get(id);
    const now = row?.stamp ?? 0;
    if (now !== stamp && !isReading) {
      stamp = now;
      refresh();
    }
  }

  function close() {
    isClosed = true;
    clearInterval(ticking);
  }

  pollLogs();
  pollMetrics();
  return { id, element, heading, render, close };
}

function sleep(milliseconds) {
  return new Promise((done) => setTimeout(done, milliseconds));
}

let cardNumber = 0;

function card(title, ...children) {
  cardNumber += 1;
  const id = `card-${cardNumber}`;
  return h(
    "section",
    { class: "card", "aria-labelledby": id },
    h("div", { class: "card-head" }, h("h2", { id }, title)),
    ...children,
  );
}

function facts(pairs) {
  return pairs
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value)));
}

function activityOf(body, label, nothing) {
  return h(
    "div",
    { class: "table-scroll short", tabindex: "0", role: "group", "aria-label": label },
    h("table", { class: "activity" }, body),
    h("p", { class: "muted if-none" }, nothing),
  );
}

// ── parts ──────────────────────────────────────────────────────────────────────────────────────

function timeLine() {
  const bar = h("div", { class: "time-bar", "aria-hidden": "true" });
  const list = h("ol", { class: "time-list" });
  const element = h("div", null, bar, list);
  let stages = [];
  let zero = 0; // the emulator's clock minus ours, in milliseconds

  function set(found) {
    zero = Date.parse(found.now) - Date.now();
    const events = found.history;
    stages = events.map((event, at) => ({
      status: event.to,
      at: Date.parse(event.at),
      end: at + 1 < events.length ? Date.parse(events[at + 1].at) : null,
      reason: event.reason,
    }));
    bar.replaceChildren(...stages.map((stage) => h("span", { "data-phase": phaseOf(stage.status) })));
    list.replaceChildren(
      ...stages.map((stage) => {
        const seconds = h("span", { class: "time-seconds" });
        stage.seconds = seconds;
        return h(
          "li",
          { "data-phase": phaseOf(stage.status) },
          h("span", { class: "time-status" }, stage.status),
          seconds,
          h("span", { class: "muted" }, clockTime(stage.at)),
        );
      }),
    );
    tick();
  }

  function tick() {
    const now = Date.now() + zero;
    stages.forEach((stage, at) => {
      const isLast = stage.status === "TERMINATED";
      const seconds = isLast ? 0 : Math.max(0, ((stage.end ?? now) - stage.at) / 1000);
      setText(stage.seconds, isLast ? "" : duration(seconds));
      // The square root keeps short stages visible beside long ones.
      bar.children[at].style.flexGrow = String(isLast ? 0.15 : Math.sqrt(seconds) + 0.12);
    });
  }

  return { element, set, tick };
}

function portTable(found) {
  const ports = Object.values(found.port_details);
  if (!ports.length) return h("p", { class: "muted" }, "No port.");
  return h(
    "ul",
    { class: "port-list" },
    ports.map((port) =>
      h(
        "li",
        null,
        h("div", null, h("b", null, port.name), h("span", { class: "tag" }, port.protocol)),
        h("code", null, port.link),
        copyButton(port.link, `the address of ${port.name}`),
        h("span", { class: "muted" }, `internal ${port.internal}`),
      ),
    ),
  );
}

function environmentTable(variables) {
  if (!variables.length) return h("p", { class: "muted" }, "No variable is declared.");
  return h(
    "div",
    { class: "table-scroll short", tabindex: "0", role: "group", "aria-label": "Environment variables" },
    h(
      "table",
      { class: "environment" },
      h("thead", null, h("tr", null, h("th", { scope: "col" }, "Name"), h("th", { scope: "col" }, "Value"))),
      h(
        "tbody",
        null,
        variables.map((one) =>
          h(
            "tr",
            null,
            h("th", { scope: "row" }, h("code", null, one.key)),
            h("td", null, one.is_hidden ? h("span", { class: "tag" }, "hidden") : h("code", null, one.value)),
          ),
        ),
      ),
    ),
  );
}

function logView() {
  const text = document.createTextNode("");
  const code = h("pre", { class: "log", tabindex: "0", role: "group", "aria-label": "Log", hidden: true }, text);
  const follow = h("input", { type: "checkbox", id: "follow" });
  follow.checked = true;
  follow.addEventListener("change", () => follow.checked && toEnd());
  const empty = h("p", { class: "muted" });
  const element = h(
    "div",
    null,
    h("div", { class: "log-bar" }, h("label", { for: "follow" }, follow, "Follow")),
    empty,
    code,
  );
  const view = {
    element,
    empty,
    position: 0,
    add(answer) {
      if (answer.position < view.position) return; // ended: the log that was read stays
      view.position = answer.position;
      if (!answer.text) return;
      empty.hidden = true;
      code.hidden = false;
      text.appendData(answer.text);
      if (text.length > MAX_LOG_CHARACTERS) text.deleteData(0, text.length - MAX_LOG_CHARACTERS);
      if (follow.checked) toEnd();
    },
  };
  function toEnd() {
    code.scrollTop = code.scrollHeight;
  }
  code.addEventListener("scroll", () => {
    if (code.scrollHeight - code.clientHeight - code.scrollTop > END_PIXELS) follow.checked = false;
  });
  return view;
}
