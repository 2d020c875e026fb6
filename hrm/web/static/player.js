// The steps of one rollout: slider, play and pause, figures, chart of the halt probability.

import { Chart } from "./chart.js";
import { byId, count, html, onClick, percent, setEnabled } from "./dom.js";

const SECONDS_PER_STEP = 0.7;

const numberOr = (number, text) => number?.toLocaleString("en") ?? text;

export class Player {
  #onMove;
  #steps = [];
  #position = 0; // 0: the puzzle itself; n: after step n
  #haltedAt = null;
  #timer = null;
  #slider = byId("player-step");
  #play = byId("player-play");
  #chart;

  /** `onMove(position)`: another step is to be shown. */
  constructor(onMove) {
    this.#onMove = onMove;
    this.#chart = new Chart(byId("player-chart"), {
      label: "Halt probability over the steps; the table after it has the values",
      height: 190,
      yRange: [0, 1],
      formatX: String,
      formatY: (share) => `${Math.round(100 * share)}%`,
      formatReading: percent,
      onPick: (step) => this.#seek(step),
    });
    this.#slider.addEventListener("input", () => this.#seek(Number(this.#slider.value)));
    onClick(this.#play, () => (this.#timer === null ? this.#start() : this.pause()));
  }

  get position() {
    return this.#position;
  }

  /** Show nothing: there are no steps. */
  clear() {
    this.pause();
    this.update([], 0, null);
  }

  /**
   * steps: {halt_probability, valid, changed, wrong, meanConfidence} each; wrong is null where it
   * is not known; haltedAt: the step after which the model wanted to halt, or null.
   */
  update(steps, position, haltedAt) {
    this.#steps = steps;
    this.#haltedAt = haltedAt;
    byId("player-empty").hidden = steps.length > 0;
    byId("player-body").hidden = steps.length === 0;
    this.#slider.max = Math.max(steps.length, 1);
    this.#slider.disabled = steps.length === 0;
    setEnabled(this.#play, steps.length > 0);
    this.#move(position);
    byId("player-table").replaceChildren(
      ...steps.map((step, index) =>
        html(
          "tr",
          {},
          html("th", { scope: "row" }, String(index + 1)),
          html("td", {}, percent(step.halt_probability)),
          html("td", {}, numberOr(step.changed, "first answer")),
        ),
      ),
    );
  }

  pause() {
    clearInterval(this.#timer);
    this.#timer = null;
    this.#showPlaying(false);
  }

  #start() {
    if (this.#position >= this.#steps.length) this.#seekTo(0);
    this.#timer = setInterval(() => {
      this.#seekTo(this.#position + 1);
      if (this.#position >= this.#steps.length) this.pause();
    }, 1000 * SECONDS_PER_STEP);
    this.#showPlaying(true);
  }

  #showPlaying(playing) {
    this.#play.setAttribute("aria-label", playing ? "Pause" : "Play");
    byId("player-icon").setAttribute("href", playing ? "#icon-pause" : "#icon-play");
  }

  /** By the user's hand: ends playing. */
  #seek(position) {
    this.pause();
    this.#seekTo(position);
  }

  #seekTo(position) {
    this.#move(Math.min(position, this.#steps.length));
    this.#onMove(this.#position);
  }

  #move(position) {
    this.#position = position;
    this.#slider.value = position;
    const step = this.#steps[position - 1];
    const status = this.#describe(step);
    this.#slider.setAttribute("aria-valuetext", status);
    byId("player-status").textContent = status;
    byId("player-halt").textContent = step ? percent(step.halt_probability) : "–";
    byId("player-changed").textContent = numberOr(step?.changed, "–");
    byId("player-confidence").textContent = step ? percent(step.meanConfidence) : "–";
    byId("player-wrong").textContent = numberOr(step?.wrong, "–");
    const points = this.#steps.map((one, index) => ({ x: index + 1, y: one.halt_probability }));
    const marks = this.#haltedAt === null ? [] : [{ x: this.#haltedAt, text: "halted here" }];
    this.#chart.update({
      series: [{ name: "halt probability", kind: "eval", points }],
      marks: this.#steps.length > (this.#haltedAt ?? Infinity) ? marks : [],
      current: step ? position : null,
    });
  }

  #describe(step) {
    if (!this.#steps.length) return "no steps yet";
    if (!step) return `puzzle, before the first of ${count(this.#steps.length, "step")}`;
    const valid = { true: ", valid", false: ", not valid" }[step.valid] ?? "";
    const place = `step ${this.#position} of ${this.#steps.length}`;
    return `${place}, halt probability ${percent(step.halt_probability)}${valid}`;
  }
}
