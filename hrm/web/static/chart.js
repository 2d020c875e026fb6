// Line charts as SVG. Long curves are thinned to means per column of pixels, with the range shaded.
//
// A series is {name, kind, points}, points [{x, y}] in order of x; kind is its CSS class.

import { html, svg } from "./dom.js";
import { closest, makeScales, thin } from "./scales.js";

const MARGIN = { top: 12, right: 14, bottom: 26, left: 46 };
const PIXELS_PER_POINT = 3;
const DOTS_UP_TO = 40;

export class Chart {
  #host;
  #options;
  #plot;
  #tip;
  #state = { series: [], marks: [], cursor: null, current: null, log: false };
  #scales = null;
  #xs = []; // where a reading can be taken

  /**
   * options: label; formatX, formatY; yRange [low, high] or null for the data's; height; fromZero:
   * x begins at 0;
   * formatReading if not formatY; onPick(x) on a click; readable: the plot takes the focus, and
   * arrow keys read values.
   */
  constructor(host, options) {
    this.#host = host;
    this.#options = { height: 200, yRange: null, readable: false, ...options };
    this.#tip = html("p", { class: "chart-tip", "aria-hidden": "true", hidden: true });
    this.#plot = html("div", { class: "plot" });
    host.replaceChildren(this.#plot, this.#tip);
    if (this.#options.readable) {
      this.#plot.tabIndex = 0;
      this.#plot.setAttribute("role", "slider");
      this.#plot.setAttribute("aria-label", `${options.label}: arrow keys read the values`);
      this.#plot.addEventListener("keydown", (event) => this.#onKey(event));
      this.#plot.addEventListener("focus", () => this.#read(this.#state.cursor ?? this.#xs.at(-1)));
      this.#plot.addEventListener("blur", () => this.#read(null));
    }
    this.#plot.addEventListener("pointermove", (event) => this.#onPointer(event));
    this.#plot.addEventListener("pointerleave", () => this.#read(null));
    this.#plot.addEventListener("click", (event) => {
      const x = this.#nearest(this.#toX(event));
      if (x !== undefined) this.#options.onPick?.(x);
    });
    new ResizeObserver(() => this.#draw()).observe(host);
  }

  /** Change what is shown: series, marks [{x, text}], current (an x), log. */
  update(state) {
    Object.assign(this.#state, state);
    this.#draw();
  }

  #draw() {
    const width = Math.max(this.#host.clientWidth, 160);
    const { height } = this.#options;
    const inner = {
      width: width - MARGIN.left - MARGIN.right,
      height: height - MARGIN.top - MARGIN.bottom,
    };
    const series = this.#state.series.map((one) => ({
      ...one,
      points: thin(one.points.filter(this.#isDrawn), inner.width / PIXELS_PER_POINT),
    }));
    this.#xs = [...new Set(series.flatMap(({ points }) => points.map(({ x }) => x)))].sort(
      (a, b) => a - b,
    );
    this.#scales = makeScales(series, inner, MARGIN, this.#state.log, this.#options);
    const picture = svg("svg", {
      class: "chart",
      width,
      height,
      viewBox: `0 0 ${width} ${height}`,
      ...(this.#options.readable
        ? { "aria-hidden": "true" }
        : { role: "img", "aria-label": this.#options.label }),
    });
    picture.append(...this.#axes(inner), ...this.#marks(inner));
    for (const one of series) picture.append(...this.#curve(one));
    picture.append(
      svg("line", {
        class: "chart-cursor",
        y1: MARGIN.top,
        y2: MARGIN.top + inner.height,
        visibility: "hidden",
      }),
    );
    this.#plot.replaceChildren(picture);
    if (this.#options.readable) this.#describe();
  }

  #isDrawn = ({ y }) => Number.isFinite(y) && (!this.#state.log || y > 0);

  #axes(inner) {
    const { x, y, xTicks, yTicks } = this.#scales;
    const { formatX, formatY } = this.#options;
    const bottom = MARGIN.top + inner.height;
    const right = MARGIN.left + inner.width;
    return [
      ...yTicks.flatMap((tick) => [
        svg("line", { class: "chart-rule", x1: MARGIN.left, x2: right, y1: y(tick), y2: y(tick) }),
        svg(
          "text",
          { class: "chart-text", x: MARGIN.left - 8, y: y(tick) + 4, "text-anchor": "end" },
          formatY(tick),
        ),
      ]),
      ...xTicks.map((tick) =>
        svg(
          "text",
          { class: "chart-text", x: x(tick), y: bottom + 18, "text-anchor": "middle" },
          formatX(tick),
        ),
      ),
    ];
  }

  #marks(inner) {
    const { x } = this.#scales;
    const { marks, current } = this.#state;
    const line = (at, name) =>
      svg("line", {
        class: name,
        x1: x(at),
        x2: x(at),
        y1: MARGIN.top,
        y2: MARGIN.top + inner.height,
      });
    const drawn = marks.flatMap(({ x: at, text }) => {
      const before = x(at) > MARGIN.left + inner.width / 2;
      return [
        line(at, "chart-mark"),
        svg(
          "text",
          {
            class: "chart-text",
            x: x(at) + (before ? -6 : 6),
            y: MARGIN.top + inner.height - 6,
            "text-anchor": before ? "end" : "start",
          },
          text,
        ),
      ];
    });
    return current === null ? drawn : [...drawn, line(current, "chart-current")];
  }

  #curve({ kind, points }) {
    const { x, y } = this.#scales;
    const at = (px, py) => `${px.toFixed(1)},${py.toFixed(1)}`;
    const parts = [];
    if (points.some(({ low, high }) => low !== high)) {
      const upper = points.map((p) => at(x(p.x), y(p.high)));
      const lower = points.map((p) => at(x(p.x), y(p.low))).reverse();
      parts.push(
        svg("polygon", { class: `chart-range ${kind}`, points: [...upper, ...lower].join(" ") }),
      );
    }
    parts.push(
      svg("polyline", {
        class: `chart-line ${kind}`,
        points: points.map((p) => at(x(p.x), y(p.y))).join(" "),
      }),
    );
    if (points.length <= DOTS_UP_TO) {
      const isCurrent = (p) => p.x === this.#state.current;
      parts.push(
        ...points.map((p) =>
          svg("circle", {
            class: `chart-dot ${kind}`,
            cx: x(p.x),
            cy: y(p.y),
            r: isCurrent(p) ? 5.5 : 3,
          }),
        ),
      );
    }
    return parts;
  }

  #toX = (event) => this.#scales.fromX(event.clientX - this.#plot.getBoundingClientRect().left);

  #nearest(x) {
    return this.#xs.reduce(
      (best, one) => (Math.abs(one - x) < Math.abs(best - x) ? one : best),
      this.#xs[0],
    );
  }

  #onPointer(event) {
    if (this.#scales) this.#read(this.#nearest(this.#toX(event)));
  }

  #onKey(event) {
    const at = this.#xs.indexOf(this.#nearest(this.#state.cursor ?? this.#xs.at(-1)));
    const leap = Math.max(1, Math.round(this.#xs.length / 10));
    const moves = {
      ArrowLeft: -1,
      ArrowDown: -1,
      ArrowRight: 1,
      ArrowUp: 1,
      PageDown: -leap,
      PageUp: leap,
      Home: -Infinity,
      End: Infinity,
    };
    if (!(event.key in moves) || at < 0) return;
    event.preventDefault();
    this.#read(this.#xs[Math.min(Math.max(at + moves[event.key], 0), this.#xs.length - 1)]);
    this.#describe();
  }

  /** Show the values at x beside the pointer or the focus; null hides them. */
  #read(x) {
    const line = this.#plot.querySelector(".chart-cursor");
    const shown = x !== null && x !== undefined && line !== null;
    this.#tip.hidden = !shown;
    line?.setAttribute("visibility", shown ? "visible" : "hidden");
    if (!shown) return;
    this.#state.cursor = x;
    const px = this.#scales.x(x);
    line.setAttribute("x1", px);
    line.setAttribute("x2", px);
    this.#tip.textContent = this.#reading(x);
    const room = this.#host.clientWidth - this.#tip.offsetWidth;
    this.#tip.style.left = `${Math.min(Math.max(px - this.#tip.offsetWidth / 2, 0), Math.max(room, 0))}px`;
  }

  #reading(x) {
    const { formatX, formatY, formatReading = formatY } = this.#options;
    const values = this.#state.series.flatMap(({ name, points }) => {
      const point = closest(points.filter(this.#isDrawn), x);
      return point ? [`${name} ${formatReading(point.y)}`] : [];
    });
    return [`step ${formatX(x)}`, ...values].join(" · ");
  }

  #describe() {
    const x = this.#state.cursor ?? this.#xs.at(-1) ?? 0;
    this.#plot.setAttribute("aria-valuemin", this.#xs[0] ?? 0);
    this.#plot.setAttribute("aria-valuemax", this.#xs.at(-1) ?? 0);
    this.#plot.setAttribute("aria-valuenow", x);
    this.#plot.setAttribute("aria-valuetext", this.#xs.length ? this.#reading(x) : "no values yet");
  }
}
