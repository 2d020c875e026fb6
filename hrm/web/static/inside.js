// The panel "Inside the model": where the states go over the ACT steps, and what a cell attends to.

import { ApiError, Latest, isAbort, postJson } from "./api.js";
import { Chart } from "./chart.js";
import { byId, count, html, percent, say, setOptions, svg } from "./dom.js";

const SIZE = 200; // of a path's picture
const MARGIN = 16;
const KINDS = ["eval", "train"]; // of the states' curves, in their order
const MOST_NAMED = 3; // cells that are named in words

export class InsideView {
  #question = null; // what the server is asked, but for the cell
  #look = null; // the grid's, as the server lists it
  #puzzle = [];
  #found = null;
  #asked = false;
  #request = new Latest();
  #panel = byId("inside");
  #message = byId("inside-message");
  #row = byId("inside-row");
  #column = byId("inside-column");
  #moved = new Chart(byId("inside-moved"), {
    label: "How far each step moves the states; the table after it has the values",
    height: 170,
    formatX: String,
    formatY: (value) => value.toLocaleString("en", { maximumSignificantDigits: 2 }),
  });

  constructor() {
    this.#panel.addEventListener("toggle", () => this.#ask());
    for (const field of [this.#row, this.#column])
      field.addEventListener("change", () => this.#askAgain());
    for (const id of ["inside-block", "inside-head"])
      byId(id).addEventListener("change", () => this.#showAttention());
  }

  /** The puzzle that was thought about, and for how long; null: none. */
  follow(question, look = null, puzzle = []) {
    this.#request.stop();
    [this.#question, this.#look, this.#puzzle] = [question, look, puzzle];
    this.#asked = false;
    byId("inside-body").hidden = true;
    if (look) [this.#row.max, this.#column.max] = look.grid_shape;
    say(this.#message, question ? "" : "Press Think: this shows what went on inside.");
    this.#ask();
  }

  #askAgain() {
    this.#asked = false;
    this.#ask();
  }

  get #cell() {
    const at = (field) => Math.min(Math.max(1, Math.trunc(field.value) || 1), Number(field.max)) - 1;
    return at(this.#row) * this.#look.grid_shape[1] + at(this.#column);
  }

  async #ask() {
    if (!this.#panel.open || this.#question === null || this.#asked) return;
    this.#asked = true;
    const signal = this.#request.start();
    try {
      const body = { ...this.#question, cell: this.#cell };
      this.#found = await postJson("/api/inside", body, signal);
      say(this.#message, "");
      byId("inside-body").hidden = false; // before charts are drawn, which need their width
      this.#show();
    } catch (error) {
      if (isAbort(error)) return;
      this.#asked = false;
      if (!(error instanceof ApiError)) throw error;
      say(this.#message, error.message, "error");
    }
  }

  #show() {
    const { paths, attention } = this.#found;
    byId("inside-paths").replaceChildren(...paths.map(drawPath));
    const series = paths.map(({ name, moved }, index) => ({
      name,
      kind: KINDS[index % KINDS.length],
      points: moved.map((y, step) => ({ x: step + 1, y })),
    }));
    this.#moved.update({ series });
    byId("inside-legend").replaceChildren(
      ...series.map(({ name, kind }) =>
        html("span", {}, html("span", { class: `swatch ${kind}`, "aria-hidden": "true" }), name),
      ),
    );
    byId("inside-table").replaceChildren(
      ...paths[0].moved.map((_, step) =>
        html(
          "tr",
          {},
          html("th", { scope: "row" }, String(step + 1)),
          html("td", {}, paths.map(({ name, moved }) => `${name} ${moved[step]}`).join(", ")),
        ),
      ),
    );
    byId("inside-attention").hidden = attention.length === 0;
    if (attention.length === 0) return;
    setOptions(
      byId("inside-block"),
      attention.map(({ block }) => ({ value: block, text: block })).reverse(),
    );
    const heads = attention[0].heads.map((_, head) => ({ value: head, text: `head ${head + 1}` }));
    setOptions(byId("inside-head"), [{ value: "mean", text: "mean of all heads" }, ...heads]);
    this.#showAttention();
  }

  #showAttention() {
    const { heads } = this.#found.attention.find(({ block }) => block === byId("inside-block").value);
    const head = byId("inside-head").value;
    const chosen = head === "mean" ? heads : [heads[Number(head)]];
    const shares = chosen[0].map((_, cell) => chosen.reduce((sum, one) => sum + one[cell], 0) / chosen.length);
    const most = Math.max(...shares, 1e-9);
    const [rows, columns] = this.#look.grid_shape;
    const tiles = shares.map((share, cell) => {
      const tile = html("span", { class: "heat", title: `${this.#nameOf(cell)}: ${percent(share)}` });
      tile.textContent = this.#puzzle[cell] === this.#look.rules.blank ? "" : this.#puzzle[cell];
      tile.style.setProperty("--share", share / most);
      tile.classList.toggle("asking", cell === this.#cell);
      tile.addEventListener("click", () => this.#choose(cell));
      return tile;
    });
    const grid = byId("inside-grid");
    grid.style.setProperty("--columns", columns);
    grid.replaceChildren(...tiles);
    const order = shares.map((_, cell) => cell).sort((a, b) => shares[b] - shares[a]);
    const named = order.slice(0, MOST_NAMED).map((cell) => `${this.#nameOf(cell)} (${percent(shares[cell])})`);
    const said = `${this.#nameOf(this.#cell)} attends most to ${named.join(", ")}.`;
    const steps = count(this.#question.steps, "step");
    grid.setAttribute("aria-label", `Attention after ${steps}, ${rows} by ${columns}: ${said}`);
    byId("inside-most").textContent = said[0].toUpperCase() + said.slice(1);
  }

  #choose(cell) {
    const columns = this.#look.grid_shape[1];
    this.#row.value = Math.floor(cell / columns) + 1;
    this.#column.value = (cell % columns) + 1;
    this.#askAgain();
  }

  #nameOf(cell) {
    const columns = this.#look.grid_shape[1];
    return `row ${Math.floor(cell / columns) + 1}, column ${(cell % columns) + 1}`;
  }
}

/** A state's path in its two principal components, the first and the last place marked. */
function drawPath({ name, places, explained }) {
  const bounds = [0, 1].map((axis) => {
    const values = places.map((place) => place[axis]);
    return [Math.min(...values), Math.max(...values)];
  });
  const span = Math.max(...bounds.map(([low, high]) => high - low), 1e-9);
  const scale = (SIZE - 2 * MARGIN) / span;
  const at = (place) => {
    const [x, y] = place.map((value, axis) => (value - bounds[axis][0]) * scale + MARGIN);
    return [x, SIZE - y].map((value) => value.toFixed(1));
  };
  const [shareX, shareY] = explained.map((share) => `${Math.round(100 * share)}%`);
  const label = `${name}: ${count(places.length - 1, "step")} in two principal components, which explain ${shareX} and ${shareY}`;
  const picture = svg("svg", { class: "chart", viewBox: `0 0 ${SIZE} ${SIZE}`, role: "img", "aria-label": label });
  picture.append(
    svg("polyline", { class: "chart-line eval", points: places.map((place) => at(place).join(",")).join(" ") }),
    ...places.map((place, step) => {
      const [cx, cy] = at(place);
      const isEnd = step === 0 || step === places.length - 1;
      const mark = step === 0 ? "chart-dot start" : "chart-dot eval";
      return svg("circle", { class: mark, cx, cy, r: isEnd ? 5.5 : 2.5 }, svg("title", {}, step ? `step ${step}` : "start"));
    }),
  );
  return html("figure", {}, picture, html("figcaption", {}, `${name}: ${shareX} and ${shareY} of the variance`));
}
