// The view "Data": examples of a data set, their augmented versions, those that a model gets wrong.

import { Latest, getJson, isAbort } from "./api.js";
import { byId, count, onClick, say, sentence, setEnabled, setOptions } from "./dom.js";
import { Grid } from "./grid.js";
import { givens, sameLook } from "./rules.js";
import { WrongScan } from "./wrong.js";

// Of no use before an example is there.
const BUTTONS = [
  "data-previous",
  "data-next",
  "data-version-previous",
  "data-version-next",
  "data-open",
];

export class DataView {
  #onOpen;
  #datasets = [];
  #checkpoints = [];
  #look = null; // what the grids are built for
  #example = null;
  #loaded = false;
  #request = new Latest();
  #message = byId("data-message");
  #puzzle = new Grid(byId("data-puzzle"), "Puzzle");
  #answer = new Grid(byId("data-answer"), "Answer");
  #scan;

  /** `onOpen({look, place, checkpoint, example})`: show an example in Solve. */
  constructor(onOpen) {
    this.#onOpen = onOpen;
    this.#scan = new WrongScan({
      place: () => ({ data: this.#dataset?.id, split: byId("data-split").value }),
      onFirst: (index) => this.#show(index),
      onChange: () => this.#showButtons(),
    });
    byId("data-set").addEventListener("change", () => this.#chooseSet());
    byId("data-split").addEventListener("change", () => this.#chooseSplit());
    byId("data-index").addEventListener("change", (event) =>
      this.#show(Number(event.target.value)),
    );
    onClick(byId("data-previous"), () => this.#step(-1));
    onClick(byId("data-next"), () => this.#step(1));
    onClick(byId("data-version-previous"), () => this.#show(this.#example.index - 1));
    onClick(byId("data-version-next"), () => this.#show(this.#example.index + 1));
    onClick(byId("data-open"), () => this.#open());
  }

  setVisible(visible) {
    if (visible && !this.#loaded) this.#load();
  }

  get #dataset() {
    return this.#datasets.find((one) => one.id === byId("data-set").value);
  }

  async #load() {
    this.#loaded = true;
    try {
      const [sets, found] = await Promise.all([
        getJson("/api/datasets"),
        getJson("/api/checkpoints"),
      ]);
      this.#datasets = sets.datasets;
      this.#checkpoints = found.checkpoints;
      const main = found.checkpoints.find((one) => one.id === found.default);
      const options = this.#datasets.map(({ id }) => ({ value: id, text: id }));
      setOptions(byId("data-set"), options, main?.data_path_id);
      if (options.length) this.#chooseSet();
      else
        say(
          this.#message,
          "There are no data sets yet. Build one, for example with “make quickstart”, then reload this page.",
        );
    } catch (error) {
      this.#loaded = false; // the next visit tries again
      this.#fail(error);
    }
  }

  #chooseSet() {
    const names = Object.entries(this.#dataset.splits);
    const options = names.map(([name, { examples }]) => ({
      value: name,
      text: `${name} (${examples.toLocaleString("en")})`,
    }));
    setOptions(byId("data-split"), options, "test");
    const fitting = this.#checkpoints.filter((one) => sameLook(one, this.#dataset));
    const trained = fitting.find((one) => one.data_path_id === this.#dataset.id);
    this.#scan.setCheckpoints(
      fitting.map(({ id }) => id),
      trained?.id,
    );
    if (this.#look === null || !sameLook(this.#look, this.#dataset)) {
      this.#look = this.#dataset;
      this.#puzzle.setLook(this.#look);
      this.#answer.setLook(this.#look);
    }
    this.#chooseSplit();
  }

  #chooseSplit() {
    this.#example = null;
    const { examples } = this.#dataset.splits[byId("data-split").value];
    byId("data-index").max = examples - 1;
    byId("data-index").disabled = false;
    this.#scan.reset();
    this.#show(0);
  }

  /** To the next or previous puzzle: the nearest wrong one, or the first version of a group. */
  #step(direction) {
    const { index, first, last } = this.#example;
    if (this.#scan.isOn) this.#show(this.#scan.neighbour(index, direction));
    else this.#show(direction > 0 ? last : first - 1, true);
  }

  async #show(index, firstVersion = false) {
    const place = { data: this.#dataset.id, split: byId("data-split").value };
    const signal = this.#request.start();
    try {
      let example = await getJson("/api/example", { ...place, index }, signal);
      if (firstVersion && example.first < index) {
        example = await getJson("/api/example", { ...place, index: example.first }, signal);
      }
      this.#example = example;
      byId("data-index").setAttribute("aria-invalid", "false");
      say(this.#message, "");
      this.#showExample();
    } catch (error) {
      if (isAbort(error)) return;
      byId("data-index").setAttribute("aria-invalid", String(error.status === 422));
      this.#fail(error);
    }
  }

  #showExample() {
    const { index, puzzle, answer, first, last } = this.#example;
    const symbols = Array.from(puzzle);
    const given = givens(symbols, this.#look);
    this.#puzzle.show(symbols.map((symbol, cell) => ({ symbol, given: given[cell] })));
    this.#answer.show(
      Array.from(answer).map((symbol, cell) => ({ symbol, given: given[cell], answered: true })),
    );
    byId("data-index").value = index;
    byId("data-grids").hidden = byId("data-bar").hidden = false;
    const single = last - first === 1;
    byId("data-version").textContent = single
      ? "This puzzle has no augmented versions."
      : `Version ${index - first + 1} of ${(last - first).toLocaleString("en")}`;
    for (const id of ["previous", "next"]) byId(`data-version-${id}`).hidden = single;
    this.#showButtons();
  }

  #showButtons() {
    if (this.#example === null) {
      for (const id of BUTTONS) setEnabled(byId(id), false);
      return;
    }
    const { index, examples, first, last } = this.#example;
    const wrong = this.#scan.isOn;
    setEnabled(byId("data-previous"), wrong ? this.#scan.neighbour(index, -1) !== null : first > 0);
    setEnabled(
      byId("data-next"),
      wrong ? this.#scan.neighbour(index, 1) !== null : last < examples,
    );
    setEnabled(byId("data-version-previous"), index > first);
    setEnabled(byId("data-version-next"), index < last - 1);
    setEnabled(byId("data-open"), true);
  }

  #open() {
    const example = this.#example;
    const place = { data: this.#dataset.id, split: byId("data-split").value, index: example.index };
    const checkpoint = this.#scan.isOn ? this.#scan.checkpoint : null;
    this.#onOpen({ look: this.#look, place, checkpoint, example });
  }

  #fail(error) {
    const wait = error.retryAfter ? ` Try again in ${count(error.retryAfter, "second")}.` : "";
    say(this.#message, wait ? sentence(error.message) + wait : error.message, "error");
  }
}
