// What the emulator has told this page: the newest state of each deployment, calls, webhooks, rates.

const MAX_CALLS = 200;
const MAX_WEBHOOKS = 200;
const RATE_SECONDS = 60;
const RECONNECT_MILLISECONDS = 1000;
const RENDER_MILLISECONDS = 80;
const HIDDEN_MILLISECONDS = 10000; // after which a page that is not visible closes its stream

export const store = {
  deployments: new Map(), // by request_id
  order: [], // newest first
  calls: [], // newest first
  webhooks: [], // newest first
  seconds: new Map(), // counts by second
  second: 0, // the newest second that is known
  faults: [],
  limits: {},
  cities: {},
  deployable: [],
  isSimulated: false,
  url: "",
  total: 0,
  version: 0, // grows with each message
  state: "connecting",
};

const listeners = new Set();
let isRenderPlanned = false;
let renderedAt = 0;
let created = []; // since the last rendering

// Calls a function after messages, 12 times a second at most, with the deployments that are new.
export function onChange(listener) {
  listeners.add(listener);
}

function planRender() {
  if (isRenderPlanned) return;
  isRenderPlanned = true;
  const pause = Math.max(0, renderedAt + RENDER_MILLISECONDS - performance.now());
  setTimeout(() => {
    isRenderPlanned = false;
    renderedAt = performance.now();
    const news = created;
    created = [];
    for (const listener of listeners) listener(news);
  }, pause);
}

function setState(state) {
  if (store.state !== state) {
    store.state = state;
    planRender();
  }
}

function take(message) {
  const now = Date.now();
  store.version += 1;
  store.total = message.total;
  if (message.is_first) {
    store.deployments.clear();
    store.calls = [];
    store.webhooks = [];
    store.seconds.clear();
    store.second = 0;
    store.limits = message.limits;
    store.cities = message.cities;
    store.isSimulated = message.is_simulated;
    store.url = message.url;
    store.order = [];
  }
  if (message.deployments || message.gone) takeDeployments(message, now);
  if (message.calls) store.calls = message.calls.reverse().concat(store.calls).slice(0, MAX_CALLS);
  if (message.webhooks) {
    store.webhooks = message.webhooks.reverse().concat(store.webhooks).slice(0, MAX_WEBHOOKS);
  }
  for (const second of message.seconds ?? []) {
    store.seconds.set(second.second, second);
    store.second = Math.max(store.second, second.second);
  }
  for (const known of store.seconds.keys()) {
    if (known <= store.second - RATE_SECONDS) store.seconds.delete(known);
  }
  if (message.deployable) store.deployable = message.deployable;
  if (message.faults) store.faults = message.faults;
  setState("live");
  planRender();
}

function takeDeployments(message, now) {
  let hasNew = false;
  for (const row of message.deployments ?? []) {
    const before = store.deployments.get(row.request_id);
    row.since = now - row.seconds_in_status * 1000;
    row.createdAt = Date.parse(row.created_at);
    row.stamp = store.version;
    row.search = [row.request_id, row.application, row.version, row.city, ...row.tags]
      .join(" ")
      .toLowerCase();
    store.deployments.set(row.request_id, row);
    if (!before) {
      hasNew = true;
      if (!message.is_first) created.push(row);
    }
  }
  for (const id of message.gone ?? []) store.deployments.delete(id);
  if (hasNew || message.gone || message.is_first) {
    store.order = [...store.deployments.values()]
      .sort((one, other) => other.createdAt - one.createdAt || (one.request_id < other.request_id ? 1 : -1))
      .map((row) => row.request_id);
  }
}

let source = null;
let hiding = 0; // the timer of a page that is not visible

// Opens the stream, and opens it again after each loss: a restarted emulator is found in a second.
// A page that stays hidden closes it: it costs nothing, and browsers open six of them at most.
export function connect() {
  if (source !== null || document.hidden) return;
  source = new EventSource("/_emulator/stream");
  source.onmessage = (event) => take(JSON.parse(event.data));
  source.onerror = () => {
    disconnect();
    setState("lost");
    setTimeout(retry, RECONNECT_MILLISECONDS);
  };
}

function disconnect() {
  source?.close();
  source = null;
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(hiding);
  if (document.hidden) hiding = setTimeout(disconnect, HIDDEN_MILLISECONDS);
  else if (source === null) retry();
});

async function retry() {
  if (source !== null || document.hidden) return; // `visibilitychange` calls again
  try {
    const answer = await fetch("/_emulator", { cache: "no-store" });
    if (answer.status === 401) setState("logged out");
    else connect();
  } catch {
    setState("lost");
    setTimeout(retry, RECONNECT_MILLISECONDS);
  }
}
