// The view "Training": curves of a run and what it answers, followed while the view is visible.

import { Latest, getJson, isAbort, sleep } from "./api.js";
import { Chart } from "./chart.js";
import { byId, count, html, percent, say, setOptions } from "./dom.js";
import { TestPuzzles } from "./test_puzzles.js";

const POLL_SECONDS = 2;
const FIRST = ["exact_accuracy", "accuracy", "lm_loss", "steps"]; // of the table; then by name
const isShare = (metric) => metric.endsWith("accuracy");

const rounded = (value) => value.toLocaleString("en", { maximumSignificantDigits: 4 });
const common = {
  readable: true,
  height: 240,
  fromZero: true,
  formatX: (step) => step.toLocaleString("en"),
};

export class TrainingView {
  #series = new Map(); // "train/lm_loss" -> [{x, y}]
  #latest = new Map(); // "train/lm_loss" -> value
  #run = null;
  #listed = null; // the runs that can be chosen, as text
  #offset = 0;
  #file = null; // of which the offset is; null: not known yet
  #visible = false;
  #following = new Latest();
  #message = byId("training-message");
  #puzzles = new TestPuzzles();
  #charts = {
    lm_loss: new Chart(byId("chart-loss"), { ...common, label: "Loss", formatY: rounded }),
    exact_accuracy: new Chart(byId("chart-accuracy"), {
      ...common,
      label: "Solved exactly",
      yRange: [0, 1],
      formatY: (share) => `${Math.round(100 * share)}%`,
      formatReading: percent,
    }),
    steps: new Chart(byId("chart-steps"), { ...common, label: "ACT steps", formatY: rounded }),
  };

  constructor() {
    byId("training-run").addEventListener("change", (event) => {
      this.#choose(event.target.value);
      this.#follow();
    });
    byId("training-log").addEventListener("change", () => this.#draw());
    document.addEventListener("visibilitychange", () => this.#follow());
  }

  setVisible(visible) {
    this.#visible = visible;
    this.#follow();
  }

  #choose(run) {
    this.#run = run;
    this.#puzzles.show(run);
    this.#forget();
    this.#draw();
  }

  #forget() {
    this.#offset = 0;
    this.#file = null;
    this.#series.clear();
    this.#latest.clear();
  }

  async #follow() {
    this.#following.stop();
    if (!this.#visible || document.hidden) return;
    const signal = this.#following.start();
    const repeat = async (poll) => {
      for (;;) await sleep(await poll(), signal);
    };
    try {
      await Promise.all([
        repeat(() => this.#poll(signal)),
        repeat(() => this.#puzzles.poll(this.#run, signal)),
      ]);
    } catch (error) {
      if (!isAbort(error)) throw error;
    }
  }

  /** Fetch what is new; seconds until the next time. */
  async #poll(signal) {
    try {
      await this.#findRuns(signal);
      if (this.#run !== null) await this.#fetch(signal);
      if (this.#run !== null)
        say(this.#message, this.#series.size ? "" : "This run has no values yet.");
      return POLL_SECONDS;
    } catch (error) {
      if (isAbort(error)) throw error;
      say(this.#message, error.message, "error");
      return Math.max(POLL_SECONDS, error.retryAfter ?? 0);
    }
  }

  async #findRuns(signal) {
    const { runs } = await getJson("/api/runs", {}, signal);
    const options = runs.map(({ id, steps_done: steps }) => ({
      value: id,
      text: steps === null ? id : `${id} (${count(steps, "step")})`, // null: no checkpoint yet
    }));
    const listed = JSON.stringify(options);
    if (listed !== this.#listed) setOptions(byId("training-run"), options); // it may be open
    this.#listed = listed;
    if (runs.length && !runs.some(({ id }) => id === this.#run)) this.#choose(options[0].value);
    if (!runs.length)
      say(
        this.#message,
        "There are no runs yet. Start one, for example with “make quickstart”: its curves appear here.",
      );
  }

  async #fetch(signal) {
    const run = this.#run;
    for (;;) {
      const known = this.#file ? { file: this.#file } : {};
      const part = await getJson("/api/metrics", { run, after: this.#offset, ...known }, signal);
      if (part.reset) {
        this.#forget();
        this.#puzzles.forget(run);
      }
      this.#file = part.file;
      for (const record of part.records) this.#add(record);
      if (part.reset || part.records.length) this.#draw();
      if (part.next === this.#offset) return;
      this.#offset = part.next;
    }
  }

  #add({ step, ...metrics }) {
    for (const [name, y] of Object.entries(metrics)) {
      if (typeof y !== "number") continue;
      if (!this.#series.has(name)) this.#series.set(name, []);
      this.#series.get(name).push({ x: step, y });
      this.#latest.set(name, y);
    }
  }

  #draw() {
    for (const [metric, chart] of Object.entries(this.#charts)) {
      const series = ["train", "eval"].flatMap((kind) => {
        const points = this.#series.get(`${kind}/${metric}`);
        return points ? [{ name: kind, kind, points }] : [];
      });
      chart.update({ series, log: metric === "lm_loss" && byId("training-log").checked });
    }
    byId("training-legend").hidden = byId("training-charts").hidden = this.#series.size === 0;
    this.#drawTable();
  }

  #drawTable() {
    const names = new Set(
      [...this.#latest.keys()].map((name) => name.replace(/^(train|eval)\//, "")),
    );
    const rest = [...names].filter((name) => !FIRST.includes(name)).sort();
    const rows = [...FIRST.filter((name) => names.has(name)), ...rest];
    const value = (name, metric) => {
      const one = this.#latest.get(name);
      if (one === undefined) return "–";
      return isShare(metric) ? percent(one) : rounded(one);
    };
    byId("training-table").replaceChildren(
      ...rows.map((metric) =>
        html(
          "tr",
          {},
          html("th", { scope: "row" }, metric),
          ...["train", "eval"].map((kind) => html("td", {}, value(`${kind}/${metric}`, metric))),
        ),
      ),
    );
    byId("training-latest").hidden = rows.length === 0;
  }
}
