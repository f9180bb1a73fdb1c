// The page: connects, and shows the overview or one deployment, by the fragment of the address.

import { actionsMenu } from "./actions.js";
import { activity } from "./activity.js";
import { deploymentView } from "./deployment.js";
import { h, setText } from "./dom.js";
import { worldMap } from "./map.js";
import { connect, onChange, store } from "./store.js";
import { deploymentTable } from "./table.js";
import { tiles } from "./tiles.js";

const STATES = {
  connecting: "connecting",
  live: "live",
  lost: "reconnecting",
  "logged out": "logged out: open a new login link",
};

const overview = document.getElementById("overview");
const single = document.getElementById("deployment");
const connection = document.getElementById("connection");
const address = document.getElementById("address");

const filter = { text: "", status: "", application: "", tag: "", cities: null };
const table = deploymentTable(filter);
const map = worldMap((cities) => table.setCities(cities));
const summary = tiles((phase) => table.setPhase(phase));
const { rates, faults, calls, webhooks } = activity();

document.getElementById("top-actions").append(actionsMenu());
overview.append(
  h("h1", { class: "visually-hidden" }, "Deployments"),
  summary.element,
  h(
    "div",
    { class: "columns" },
    h("div", { class: "stack" }, map.element, table.element),
    h("div", { class: "stack" }, rates.element, faults.element, calls.element, webhooks.element),
  ),
);

const MAP_MILLISECONDS = 120; // one and a half pauses of `store`, to fall between two renderings

let view = null; // of one deployment
let isMapPlanned = false;
const onMap = []; // deployments that are new on it

function route() {
  const id = idOf(location.hash);
  view?.close();
  view = id === null ? null : deploymentView(id);
  overview.hidden = view !== null;
  single.hidden = view === null;
  single.replaceChildren(...(view ? [view.element] : []));
  document.title = view ? `${view.id} – Edgegap emulator` : "Edgegap emulator";
  if (view) view.heading.focus({ preventScroll: true });
  window.scrollTo(0, 0);
  render([]);
}

// Returns the id of the deployment that an address names, or null.
function idOf(fragment) {
  const found = /^#\/deployments\/([^/]+)$/.exec(fragment);
  try {
    return found && decodeURIComponent(found[1]);
  } catch {
    return null; // not written by this page: a percent sign without its digits
  }
}

function render(created) {
  connection.dataset.state = store.state;
  setText(connection, STATES[store.state]);
  setText(address, store.url);
  if (view) {
    view.render();
    return;
  }
  summary.render();
  table.render();
  rates.render();
  faults.render();
  calls.render();
  webhooks.render();
  planMap(created);
}

// Draws the map half as often as the rest, and in other frames: both together take longer than one.
function planMap(created) {
  onMap.push(...created);
  if (isMapPlanned) return; // a page that is hidden has no frames
  isMapPlanned = true;
  requestAnimationFrame(() =>
    setTimeout(() => {
      isMapPlanned = false;
      map.render(onMap.splice(0));
    }, MAP_MILLISECONDS),
  );
}

window.addEventListener("hashchange", route);
onChange(render);
route();
connect();
