// The world map: where deployments run, where their players are, and a line between them.
//
// The land is an SVG path, lines and players are drawn on a canvas, and each city with deployments
// is a button, so that the keyboard and a screen reader reach it. Cities that would overlap are one
// cluster. One canvas is drawn after a change; another one shows the lines that grow, at each frame:
// to draw hundreds of lines takes longer than a frame has.

import { h, phaseOf, setText, svg } from "./dom.js";
import { store } from "./store.js";
import { LAND } from "./world.js";

const WIDTH = 2000; // of the drawing; benchmarks/world_path.py has the same numbers
const HEIGHT = 880;
const SCALE = 365;
const CENTRE = [1000, 515];

const MAX_PLAYERS = 8; // of one deployment, that have lines
const CELL = 2; // degrees; players that are this near have one line
const GROW_MILLISECONDS = 900; // for which a new line grows
const MAX_GROWING = 60;
const MAX_ZOOM = 8;
let growth = 1.9; // of a cluster's radius in pixels, by the root of its deployments
const PHASES = ["error", "deploying", "seeking", "ready", "ending"]; // the first wins a line's colour

// Returns the place of [latitude, longitude] in the drawing, by the Natural Earth projection.
export function project([latitude, longitude]) {
  const x = (longitude * Math.PI) / 180;
  const y = (latitude * Math.PI) / 180;
  const y2 = y * y;
  const y4 = y2 * y2;
  const across = x * (0.8707 - 0.131979 * y2 + y4 * (-0.013791 + y4 * (0.003971 * y2 - 0.001529 * y4)));
  const up = y * (1.007226 + y2 * (0.015085 + y4 * (-0.044475 + 0.028874 * y2 - 0.005916 * y4)));
  return [CENTRE[0] + SCALE * across, CENTRE[1] - SCALE * up];
}

export function worldMap(onChoose) {
  const land = svg("path", { class: "land", d: LAND });
  const drawing = svg(
    "svg",
    { class: "map-land", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("path", { class: "graticule", d: graticule() }),
    land,
  );
  const canvases = [1, 2].map(() => h("canvas", { class: "map-lines", "aria-hidden": "true" }));
  const places = h("div", { class: "map-places" });
  const summary = h("p", { class: "map-summary" });
  const frame = h("div", { class: "map" }, drawing, canvases, places);
  const zoomIn = zoomButton("+", "Zoom in", () => zoom(1.8));
  const zoomOut = zoomButton("−", "Zoom out", () => zoom(1 / 1.8));
  const element = h(
    "section",
    { class: "card map-card", "aria-labelledby": "map-title" },
    h(
      "div",
      { class: "card-head map-head" },
      h("h2", { id: "map-title" }, "Where they run"),
      summary,
      h("div", { class: "zoom" }, zoomOut, zoomIn),
    ),
    frame,
    legend(),
  );

  const [context, moving] = canvases.map((one) => one.getContext("2d"));
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const view = { zoom: 1, x: WIDTH / 2, y: HEIGHT / 2 };
  const buttons = new Map(); // by the names of their cities
  let size = { width: 0, height: 0 };
  let colours = null;
  let lines = []; // what the first canvas shows
  let players = [];
  let growing = []; // new lines: { from, to, phase, began }
  let drawnVersion = -1;
  let isFramePlanned = false;
  let isChanged = true; // the first canvas is not drawn yet

  // ── what there is ─────────────────────────────────────────────────────────────────────────────

  function collect() {
    const cities = new Map();
    const groups = new Map();
    for (const row of store.deployments.values()) {
      if (row.status === "TERMINATED") continue;
      const phase = phaseOf(row.status);
      const ends = endsOf(row);
      if (row.is_placed) {
        let city = cities.get(row.city);
        if (!city) {
          city = { name: row.city, at: ends.city, count: 0, phases: {} };
          cities.set(row.city, city);
        }
        city.count += 1;
        city.phases[phase] = (city.phases[phase] ?? 0) + 1;
      }
      for (const player of ends.players) {
        const key = row.is_placed ? player.key + row.city : player.key;
        const group = groups.get(key);
        if (group) {
          group.count += 1;
          if (PHASES.indexOf(phase) < PHASES.indexOf(group.phase)) group.phase = phase;
        } else {
          groups.set(key, { from: player.at, to: row.is_placed ? ends.city : null, phase, count: 1 });
        }
      }
    }
    lines = [...groups.values()].filter((group) => group.to !== null);
    players = [...groups.values()];
    return [...cities.values()].sort((one, other) => other.count - one.count);
  }

  function render(created) {
    if (drawnVersion === store.version && created.length === 0) return;
    drawnVersion = store.version;
    if (!still.matches) {
      for (const row of created.slice(-MAX_GROWING)) {
        const { city, players: from } = endsOf(row);
        for (const player of from.slice(0, 3)) {
          growing.push({ from: player.at, to: city, began: performance.now() });
        }
      }
      growing = growing.slice(-MAX_GROWING);
    }
    showCities(collect());
    planDrawing();
  }

  function showCities(cities) {
    const clusters = [];
    for (const city of cities) {
      const [x, y] = toScreen(city.at);
      const near = clusters.find(
        (one) => Math.hypot(one.x - x, one.y - y) < (radius(one.count) + radius(city.count)) * 0.86,
      );
      if (near) {
        near.cities.push(city);
        near.count += city.count;
        for (const [phase, count] of Object.entries(city.phases)) {
          near.phases[phase] = (near.phases[phase] ?? 0) + count;
        }
      } else {
        clusters.push({ x, y, at: city.at, cities: [city], count: city.count, phases: { ...city.phases } });
      }
    }
    const wanted = new Set();
    const labels = []; // boxes of the names that are shown
    for (const cluster of clusters) {
      const names = cluster.cities.map((city) => city.name);
      const key = names[0];
      wanted.add(key);
      let button = buttons.get(key);
      if (!button) {
        button = placeButton();
        buttons.set(key, button);
        places.append(button.element);
      }
      button.update(cluster, names, isFree(cluster, names, clusters, labels));
    }
    for (const [key, button] of buttons) {
      if (wanted.has(key)) continue;
      button.element.remove();
      buttons.delete(key);
    }
    const count = cities.reduce((sum, city) => sum + city.count, 0);
    setText(summary, count ? `${count} in ${cities.length} ${cities.length === 1 ? "city" : "cities"}` : "");
  }

  function placeButton() {
    const number = h("span", { class: "place-number" });
    const name = h("span", { class: "place-name" });
    const button = h("button", { type: "button", class: "place" }, number, name);
    let names = [];
    let phases = "";
    button.addEventListener("click", () => onChoose(names));

    function update(cluster, newNames, hasName) {
      names = newNames;
      name.hidden = !hasName;
      const across = radius(cluster.count) * 2;
      button.style.left = `${cluster.x}px`;
      button.style.top = `${cluster.y}px`;
      button.style.width = button.style.height = `${across}px`;
      button.hidden =
        cluster.x < 0 || cluster.y < 0 || cluster.x > size.width || cluster.y > size.height;
      setText(number, cluster.count);
      setText(name, titleOf(names));
      const now = JSON.stringify(cluster.phases);
      if (now === phases) return;
      phases = now;
      button.style.background = ring(cluster.phases, cluster.count);
      const words = Object.entries(cluster.phases).map(([phase, count]) => `${count} ${phase}`);
      button.setAttribute("aria-label", `${names.join(", ")}: ${words.join(", ")}. Show these only`);
    }
    return { element: button, update };
  }

  // ── drawing ───────────────────────────────────────────────────────────────────────────────────

  function planDrawing() {
    isChanged = true;
    planFrame();
  }

  function planFrame() {
    if (isFramePlanned) return;
    isFramePlanned = true;
    requestAnimationFrame(draw);
  }

  function draw(now) {
    isFramePlanned = false;
    colours ??= readColours(element);
    if (isChanged) drawLines();
    isChanged = false;
    drawGrowing(now);
    if (growing.length) planFrame();
  }

  function drawLines() {
    context.clearRect(0, 0, size.width, size.height);
    context.lineCap = "round";
    context.globalAlpha = 0.45;
    context.fillStyle = colours.city;
    for (const point of Object.values(store.cities)) {
      const [x, y] = toScreen(project(point));
      context.beginPath();
      context.arc(x, y, 1.8, 0, 7);
      context.fill();
    }
    for (const line of lines) {
      context.strokeStyle = colours[line.phase];
      context.globalAlpha = Math.min(0.85, 0.38 + 0.07 * line.count);
      context.lineWidth = Math.min(3.5, 1.2 + Math.log2(line.count) * 0.5);
      stroke(context, line.from, line.to, 1);
    }
    for (const player of players) {
      const [x, y] = toScreen(player.from);
      context.globalAlpha = 0.9;
      context.fillStyle = colours.player;
      context.beginPath();
      context.arc(x, y, Math.min(4.5, 1.7 + Math.log2(player.count) * 0.5), 0, 7);
      context.fill();
    }
  }

  function drawGrowing(now) {
    moving.clearRect(0, 0, size.width, size.height);
    moving.lineCap = "round";
    moving.lineWidth = 2;
    moving.strokeStyle = moving.fillStyle = colours.accent;
    growing = growing.filter((one) => now - one.began < GROW_MILLISECONDS);
    for (const one of growing) {
      const share = Math.min(1, Math.max(0, (now - one.began) / GROW_MILLISECONDS));
      moving.globalAlpha = 1 - share * share;
      const [x, y] = stroke(moving, one.from, one.to, 1 - (1 - share) ** 3);
      moving.beginPath();
      moving.arc(x, y, 2.6, 0, 7);
      moving.fill();
    }
  }

  // Draws the first `share` of a bent line. Returns where it ends.
  function stroke(context, from, to, share) {
    const [x, y] = toScreen(from);
    const [endX, endY] = toScreen(to);
    const bend = Math.hypot(endX - x, endY - y) * 0.18;
    const middleX = (x + endX) / 2;
    const middleY = (y + endY) / 2 - bend;
    // De Casteljau: the control point of the first part of a quadratic curve.
    const controlX = x + (middleX - x) * share;
    const controlY = y + (middleY - y) * share;
    const otherX = middleX + (endX - middleX) * share;
    const otherY = middleY + (endY - middleY) * share;
    const atX = controlX + (otherX - controlX) * share;
    const atY = controlY + (otherY - controlY) * share;
    context.beginPath();
    context.moveTo(x, y);
    context.quadraticCurveTo(controlX, controlY, atX, atY);
    context.stroke();
    return [atX, atY];
  }

  function toScreen([x, y]) {
    const scale = (size.width / WIDTH) * view.zoom;
    return [(x - view.x) * scale + size.width / 2, (y - view.y) * scale + size.height / 2];
  }

  function show() {
    const [width, height] = [WIDTH / view.zoom, HEIGHT / view.zoom];
    view.x = Math.min(WIDTH - width / 2, Math.max(width / 2, view.x));
    view.y = Math.min(HEIGHT - height / 2, Math.max(height / 2, view.y));
    drawing.setAttribute("viewBox", `${view.x - width / 2} ${view.y - height / 2} ${width} ${height}`);
    zoomOut.disabled = view.zoom <= 1;
    zoomIn.disabled = view.zoom >= MAX_ZOOM;
    frame.classList.toggle("is-zoomed", view.zoom > 1);
    showCities(collect());
    planDrawing();
  }

  function zoom(factor) {
    view.zoom = Math.min(MAX_ZOOM, Math.max(1, view.zoom * factor));
    const cities = collect();
    if (factor > 1 && view.zoom <= 1.8 && cities.length) {
      const total = cities.reduce((sum, city) => sum + city.count, 0);
      view.x = cities.reduce((sum, city) => sum + city.at[0] * city.count, 0) / total;
      view.y = cities.reduce((sum, city) => sum + city.at[1] * city.count, 0) / total;
    }
    show();
  }

  frame.addEventListener("pointerdown", (event) => {
    if (view.zoom === 1 || event.target.closest("button")) return;
    frame.setPointerCapture(event.pointerId);
    const move = (moved) => {
      const scale = (size.width / WIDTH) * view.zoom;
      view.x -= moved.movementX / scale;
      view.y -= moved.movementY / scale;
      show();
    };
    frame.addEventListener("pointermove", move);
    frame.addEventListener("lostpointercapture", () => frame.removeEventListener("pointermove", move), {
      once: true,
    });
  });

  new ResizeObserver(() => {
    const box = frame.getBoundingClientRect();
    if (!box.width) return;
    const ratio = window.devicePixelRatio || 1;
    size = { width: box.width, height: box.height };
    growth = box.width < 600 ? 0.8 : 1.9;
    for (const one of canvases) {
      one.width = Math.round(box.width * ratio);
      one.height = Math.round(box.height * ratio);
      one.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
    }
    show();
  }).observe(frame);
  dark.addEventListener("change", () => {
    colours = null;
    planDrawing();
  });

  return { element, render };
}

// Returns where a deployment and its players are in the drawing; they do not move.
function endsOf(row) {
  const before = row.ends ?? store.deployments.get(row.request_id)?.ends;
  if (before && before.name === row.city) return (row.ends = before);
  const seen = new Set();
  const players = [];
  for (const point of row.players.slice(0, MAX_PLAYERS)) {
    const key = `${Math.round(point[0] / CELL)} ${Math.round(point[1] / CELL)} `;
    if (seen.has(key)) continue;
    seen.add(key);
    players.push({ key, at: project(point) });
  }
  row.ends = { name: row.city, city: project(row.point), players };
  return row.ends;
}

function titleOf(names) {
  return names.length > 1 ? `${names[0]} +${names.length - 1}` : names[0];
}

// Returns whether the name of a cluster covers no other cluster and no name before it.
function isFree(cluster, names, clusters, labels) {
  const half = titleOf(names).length * 3.3 + 6;
  const top = cluster.y + radius(cluster.count) + 2;
  const box = { left: cluster.x - half, right: cluster.x + half, top, bottom: top + 18 };
  const overlaps = (other) =>
    box.left < other.right && box.right > other.left && box.top < other.bottom && box.bottom > other.top;
  const covered = clusters.some((other) => {
    const r = radius(other.count) + 1;
    return (
      other !== cluster &&
      overlaps({ left: other.x - r, right: other.x + r, top: other.y - r, bottom: other.y + r })
    );
  });
  if (covered || labels.some(overlaps)) return false;
  labels.push(box);
  return true;
}

function radius(count) {
  return 11 + Math.min(8, Math.sqrt(count) - 1) * growth;
}

// Returns a ring with a part for each phase, as a CSS background.
function ring(phases, count) {
  let at = 0;
  const parts = PHASES.filter((phase) => phases[phase]).map((phase) => {
    const from = at;
    at += (phases[phase] / count) * 100;
    return `var(--${phase}) ${from.toFixed(1)}% ${at.toFixed(1)}%`;
  });
  return `conic-gradient(${parts.join(", ")})`;
}

function readColours(element) {
  const style = getComputedStyle(element);
  return Object.fromEntries(
    [...PHASES, "player", "accent", "city"].map((name) => [name, style.getPropertyValue(`--${name}`).trim()]),
  );
}

function graticule() {
  let path = "";
  for (let longitude = -150; longitude <= 150; longitude += 30) {
    for (let latitude = -56; latitude <= 84; latitude += 7) {
      const [x, y] = project([latitude, longitude]);
      path += `${latitude === -56 ? "M" : "L"}${x.toFixed(0)} ${y.toFixed(0)}`;
    }
  }
  for (const latitude of [-30, 0, 30, 60]) {
    const [west, y] = project([latitude, -180]);
    const [east] = project([latitude, 180]);
    path += `M${west.toFixed(0)} ${y.toFixed(0)}H${east.toFixed(0)}`;
  }
  return path;
}

function zoomButton(sign, label, onclick) {
  return h("button", { type: "button", class: "small", "aria-label": label, onclick }, sign);
}

function legend() {
  const names = { ready: "ready", deploying: "deploying", seeking: "finding a location", error: "error", ending: "ending", player: "players" };
  return h(
    "ul",
    { class: "legend", "aria-label": "Colours" },
    Object.entries(names).map(([phase, name]) => h("li", { "data-phase": phase }, name)),
  );
}
