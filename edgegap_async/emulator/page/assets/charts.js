// Small charts, as SVG.

import { h, setText, svg } from "./dom.js";

// Returns a chart of a line with its area, and a caption. A value of null was not measured.
export function lineChart(title, format) {
  const WIDTH = 300;
  const HEIGHT = 72;
  const area = svg("path", { class: "chart-area" });
  const line = svg("path", { class: "chart-line" });
  const drawing = svg(
    "svg",
    {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      class: "chart",
      role: "img",
      "aria-label": title,
    },
    svg("path", { class: "chart-grid", d: `M0 ${HEIGHT - 0.5}H${WIDTH}M0 ${HEIGHT / 2}H${WIDTH}M0 0.5H${WIDTH}` }),
    area,
    line,
  );
  const newest = h("span", { class: "chart-value" });
  const most = h("span", { class: "muted" });
  const element = h(
    "figure",
    { class: "chart-figure" },
    h("figcaption", null, h("span", null, title), newest, most),
    drawing,
  );

  // `nothing` stands in place of the largest value if there is none; `span` is of all values, as a text.
  function render(measured, nothing, span) {
    const values = measured.filter((value) => value !== null);
    const top = Math.max(...values, 0) || 1;
    const last = values.at(-1);
    setText(newest, last === undefined ? "–" : format(last));
    setText(most, values.length ? `at most ${format(Math.max(...values))}${span ? ` in ${span}` : ""}` : nothing);
    drawing.setAttribute("aria-label", `${title}: ${newest.textContent}, ${most.textContent}`);
    if (values.length < 2) {
      area.setAttribute("d", "");
      line.setAttribute("d", "");
      return;
    }
    const points = values.map(
      (value, at) =>
        `${((at / (values.length - 1)) * WIDTH).toFixed(1)} ${(HEIGHT - 2 - (value / top) * (HEIGHT - 6)).toFixed(1)}`,
    );
    line.setAttribute("d", `M${points.join("L")}`);
    area.setAttribute("d", `M0 ${HEIGHT}L${points.join("L")}L${WIDTH} ${HEIGHT}Z`);
  }

  return { element, render };
}

// Returns a chart of calls in each of the last sixty seconds, with the limit as a line.
export function rateChart(name) {
  const WIDTH = 240;
  const HEIGHT = 40;
  const bars = svg("path", { class: "bars" });
  const refused = svg("path", { class: "bars bars-refused" });
  const limitLine = svg("path", { class: "limit-line" });
  const drawing = svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", class: "rate-chart", role: "img", "aria-label": name },
    bars,
    refused,
    limitLine,
  );
  const number = h("span", { class: "rate-number" });
  const title = h("span", { class: "rate-name" }, name);
  const element = h("div", { class: "rate" }, h("div", { class: "rate-head" }, title, number), drawing);

  // Draws counts of sixty seconds, oldest first: [calls, refused].
  function render(counts, limit) {
    const top = Math.max(limit ?? 1, ...counts.map(([passed, more]) => passed + more), 1) * 1.08;
    const step = WIDTH / counts.length;
    let passedPath = "";
    let refusedPath = "";
    counts.forEach(([passed, more], at) => {
      const x = (at * step).toFixed(1);
      const width = (step - 1).toFixed(1);
      const height = (passed / top) * HEIGHT;
      if (passed) passedPath += `M${x} ${HEIGHT}v${(-height).toFixed(1)}h${width}v${height.toFixed(1)}z`;
      if (more) {
        const above = (more / top) * HEIGHT;
        refusedPath += `M${x} ${(HEIGHT - height).toFixed(1)}v${(-above).toFixed(1)}h${width}v${above.toFixed(1)}z`;
      }
    });
    bars.setAttribute("d", passedPath);
    refused.setAttribute("d", refusedPath);
    const y = limit ? (HEIGHT - (limit / top) * HEIGHT).toFixed(1) : null;
    limitLine.setAttribute("d", y === null ? "" : `M0 ${y}H${WIDTH}`);
    const [passed, more] = counts.at(-1) ?? [0, 0];
    const used = limit ? `${passed} of ${limit} a second` : `${passed} a second`;
    setText(number, more ? `${used}, ${more} answered 429` : used);
    drawing.setAttribute("aria-label", `${name}: ${number.textContent}`);
  }

  return { element, render };
}
