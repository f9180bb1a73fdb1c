// What the page does to the emulator: each action is one call, shown as the command that does it too.

import { copyButton, h, setText } from "./dom.js";
import { store } from "./store.js";

// ── calls ──────────────────────────────────────────────────────────────────────────────────────

export function deployCall(body) {
  return { what: "Deploy", method: "POST", path: "/v2/deployments", body };
}

export function stopCall(id) {
  return { what: `Stop ${id}`, method: "DELETE", path: `/v1/stop/${encodeURIComponent(id)}` };
}

export function crashCall(id) {
  const path = `/_emulator/deployments/${encodeURIComponent(id)}/crash`;
  return { what: `Crash ${id}`, method: "POST", path };
}

function faultCall(what, body) {
  return { what, method: "POST", path: "/_emulator/faults", body };
}

const clearFaultsCall = { what: "Remove all faults", method: "DELETE", path: "/_emulator/faults" };

// Returns the shell command of a call. The token is a variable of the shell.
export function curl({ method, path, body }) {
  const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const lines = [
    `curl -X ${method} "$EDGEGAP_BASE_URL"${quote(path)}`,
    '  -H "Authorization: token $EDGEGAP_API_TOKEN"',
  ];
  if (body !== undefined) {
    lines.push('  -H "Content-Type: application/json"', `  -d ${quote(JSON.stringify(body))}`);
  }
  return lines.join(" \\\n");
}

// Makes a call, and tells how it went. Returns the answer's body, or null if it was refused.
export async function call(one) {
  try {
    const answer = await fetch(one.path, {
      method: one.method,
      headers: {
        "X-Emulator-Page": "1",
        ...(one.body === undefined ? {} : { "Content-Type": "application/json" }),
      },
      body: one.body === undefined ? undefined : JSON.stringify(one.body),
    });
    const text = await answer.text();
    const body = text ? JSON.parse(text) : null;
    if (!answer.ok) throw new Error(`${answer.status}: ${body?.message ?? answer.statusText}`);
    toast(one, body?.message ?? body?.request_id ?? "done", false);
    return body ?? {};
  } catch (error) {
    toast(one, error.message, true);
    return null;
  }
}

// Reads from the control API. Returns null if there is nothing, or no emulator.
export async function read(path) {
  try {
    const answer = await fetch(path, { cache: "no-store" });
    return answer.ok ? await answer.json() : null;
  } catch {
    return null;
  }
}

function toast(one, text, isProblem) {
  const toasts = document.getElementById("toasts");
  const close = h("button", { type: "button", class: "small", "aria-label": "Close this message" }, "×");
  const element = h(
    "div",
    { class: "toast", "data-problem": isProblem },
    h("div", { class: "toast-text" }, h("strong", null, one.what), h("span", null, ` ${text}`), close),
    commandBox(() => curl(one), "as a command"),
  );
  close.addEventListener("click", () => element.remove());
  toasts.append(element);
  while (toasts.children.length > 3) toasts.firstElementChild.remove();
  setTimeout(() => element.remove(), isProblem ? 15000 : 6000);
}

// Returns a disclosure with a command and a button that copies it; the command is made when it opens.
export function commandBox(makeCommand, title) {
  const code = h("code");
  const bar = h("div", { class: "command-bar" });
  const element = h(
    "details",
    { class: "command-box" },
    h("summary", null, title),
    h("pre", { class: "command", tabindex: "0", "aria-label": "Command" }, code),
    bar,
  );
  const fill = () => {
    const command = makeCommand();
    setText(code, command);
    bar.replaceChildren(copyButton(command, "the command"));
  };
  element.addEventListener("toggle", () => element.open && fill());
  element.refresh = () => element.open && fill();
  return element;
}

// ── the buttons on top ─────────────────────────────────────────────────────────────────────────

export function actionsMenu() {
  const deploy = deployDialog();
  const faults = faultDialog();
  return h(
    "div",
    { class: "button-row" },
    h("button", { type: "button", onclick: faults.open }, "Make it fail"),
    h("button", { type: "button", class: "primary", onclick: deploy.open }, "Deploy"),
    deploy.element,
    faults.element,
  );
}

function dialog(title, ...children) {
  const close = h("button", { type: "button", class: "small", "aria-label": "Close" }, "×");
  const id = `dialog-${title.toLowerCase().replaceAll(" ", "-")}`;
  const element = h(
    "dialog",
    { "aria-labelledby": id },
    h("div", { class: "dialog-head" }, h("h2", { id }, title), close),
    ...children,
  );
  close.addEventListener("click", () => element.close());
  element.addEventListener("click", (event) => event.target === element && element.close());
  return element;
}

const PLAYERS = "48.86, 2.35\n52.52, 13.40\n45.46, 9.19";

function deployDialog() {
  const version = h("select", { id: "deploy-version", required: true });
  const players = h("textarea", { id: "deploy-players", rows: "4", spellcheck: "false" });
  players.value = PLAYERS;
  const tags = h("input", { id: "deploy-tags", autocomplete: "off", placeholder: "eu, ranked" });
  const count = h("input", { id: "deploy-count", type: "number", min: "1", max: "50", value: "1" });
  const problem = h("p", { class: "form-error", role: "alert" });
  const command = commandBox(() => curl(deployCall(body())), "as a command");

  function body() {
    const [application, versionName] = version.value.split("\n");
    const users = players.value
      .split("\n")
      .map((line) => line.trim())
      .filter(Boolean)
      .map(userOf);
    const names = tags.value.split(",").map((tag) => tag.trim()).filter(Boolean);
    return { application, version: versionName, users, ...(names.length ? { tags: names } : {}) };
  }

  const form = h(
    "form",
    { method: "dialog" },
    field("deploy-version", "Application version", version),
    field("deploy-players", "Players, one a line: latitude, longitude, or an IP address", players),
    field("deploy-tags", "Tags, with commas between them", tags),
    field("deploy-count", "How many deployments", count),
    problem,
    command,
    h("div", { class: "button-row end" }, h("button", { type: "submit", class: "primary" }, "Deploy")),
  );
  form.addEventListener("input", () => command.refresh());
  const element = dialog("Deploy", form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    setText(problem, "");
    let one;
    try {
      one = deployCall(body());
    } catch (error) {
      setText(problem, error.message);
      return;
    }
    element.close();
    const times = Math.min(50, Math.max(1, Number(count.value) || 1));
    for (let made = 0; made < times; made += 1) if ((await call(one)) === null) break;
  });

  function open() {
    version.replaceChildren(
      ...store.deployable.map((name) => {
        const space = name.lastIndexOf(" ");
        const value = `${name.slice(0, space)}\n${name.slice(space + 1)}`;
        return h("option", { value }, name);
      }),
    );
    setText(problem, store.deployable.length ? "" : "The emulator has no application to deploy.");
    element.showModal();
    command.refresh();
  }
  return { element, open };
}

function field(id, label, input) {
  return h("div", { class: "field" }, h("label", { for: id }, label), input);
}

// Returns the player that a line describes, as the API wants it.
function userOf(line) {
  const point = /^(-?[\d.]+)\s*,\s*(-?[\d.]+)$/.exec(line);
  if (point) {
    const [latitude, longitude] = [Number(point[1]), Number(point[2])];
    if (Math.abs(latitude) <= 90 && Math.abs(longitude) <= 180) {
      return { user_type: "geo_coordinates", user_data: { latitude, longitude } };
    }
  }
  if (/^[\da-f.:]+$/i.test(line) && !line.includes(",")) {
    return { user_type: "ip_address", user_data: { ip_address: line } };
  }
  throw new Error(`${line}: neither latitude, longitude in degrees nor an IP address`);
}

function faultDialog() {
  const kind = h(
    "select",
    { "aria-label": "Which webhook" },
    ["ready", "error", "terminated"].map((name) =>
      h("option", { value: `webhook_on_${name}` }, `of ${name.toUpperCase()}`),
    ),
  );
  const seconds = h("input", {
    type: "number",
    min: "0",
    max: "600",
    value: "5",
    "aria-label": "Seconds by which lists lag",
  });
  const rows = [
    faultRow(
      "Lose the next webhook",
      "The receiver never gets it.",
      kind,
      () => faultCall("Lose the next webhook", { operation: kind.value, effect: "drop" }),
    ),
    faultRow("Refuse the next deploy", "The answer is 422, and nothing is deployed.", null, () =>
      faultCall("Refuse the next deploy", {
        operation: "deploy",
        when: "read",
        effect: { name: "respond", status: 422, body: { message: "No capacity (scripted)" } },
      }),
    ),
    faultRow("Make lists lag", "Lists show a deployment that many seconds late.", seconds, () =>
      faultCall("Make lists lag", {
        operation: "list_deployments",
        times: "forever",
        effect: { name: "hide", seconds: Number(seconds.value) || 0 },
      }),
    ),
    faultRow("Remove all faults", "Everything works again.", null, () => clearFaultsCall),
  ];
  const element = dialog("Make it fail", h("div", { class: "fault-rows" }, rows));
  return { element, open: () => element.showModal() };
}

function faultRow(title, text, input, makeCall) {
  const command = commandBox(() => curl(makeCall()), "as a command");
  const outcome = h("span", { class: "outcome", role: "status" });
  input?.addEventListener("input", () => command.refresh());
  async function act() {
    setText(outcome, "");
    setText(outcome, (await call(makeCall())) ? "Done" : "Refused");
  }
  return h(
    "div",
    { class: "fault-row" },
    h("div", null, h("h3", null, title), h("p", { class: "muted" }, text)),
    h(
      "div",
      { class: "button-row" },
      outcome,
      input,
      h("button", { type: "button", onclick: act, "aria-label": `Do it: ${title}` }, "Do it"),
    ),
    command,
  );
}

export { clearFaultsCall };
