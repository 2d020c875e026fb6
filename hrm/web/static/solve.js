// The view "Solve": a puzzle, typed, pasted or from a data set, and the model thinking about it.

import { questionOf } from "./answers.js";
import { ApiError, Latest, getJson, isAbort, postJson, think } from "./api.js";
import { Asking, ONCE, countOf } from "./asking.js";
import { Attempts } from "./attempts.js";
import { OncePerFrame, byId, count, onClick, say, sentence, setEnabled, setOptions } from "./dom.js";
import { anotherOf, sourceFor } from "./examples.js";
import { Grid } from "./grid.js";
import { Address, faultOf } from "./link.js";
import { Offers } from "./offers.js";
import { InsideView } from "./inside.js";
import { OtherModels } from "./others.js";
import { Player } from "./player.js";
import { PuzzleText } from "./puzzle_text.js";
import { describeStep, isFailed, isSolved, puzzleCells, verdict } from "./rollout.js";
import { cellCount, conflicts, hasUnits, isEmpty, sameLook } from "./rules.js";

const MORE_STEPS = 8;
const HOW_TO_TYPE = "Type or paste a puzzle: arrow keys move, Backspace clears, Enter thinks.";
const HOW_TO_OPEN = "Paste a puzzle, or take an example: this kind is drawn, not typed.";
const READY = "Ready: press Think.";

export class SolveView {
  #checkpoints = [];
  #datasets = [];
  #checkpoint = null;
  #puzzle = []; // symbols, one per cell
  #answer = null; // likewise, "?" where unknown; null: not known at all
  #identity = null; // {data, identifier} of an example; null: not one that a model may know
  #place = null; // {data, split, index} of an example, or null
  #fault = null; // the cell that the server refused
  #follows = true; // the newest step is shown as it arrives
  #drawing = new OncePerFrame(() => this.#drawNewest());
  #running = false;
  #shared = null; // what a link asks for, until checkpoints are there
  #opening = null; // the link that is being opened, which the address says meanwhile
  #visible = false;
  #retryTimer = null;
  #link = new Address("solve");
  #thinking = new Latest();
  #loading = new Latest();
  #message = byId("solve-message");
  #asking = new Asking();
  #asked = null; // how the first attempt that is there was asked for
  #askedAll = null; // and how all were, of which it may have been continued alone
  #inside = new InsideView();
  #others = new OtherModels();
  #offers = new Offers((values) => this.#thinkHarder(values));
  #grid = new Grid(byId("solve-grid"), "Puzzle", (cell, symbol) => this.#edit(cell, symbol));
  #player = new Player(() => {
    this.#follows = false;
    this.#showGrid();
    this.#address();
  });
  #attempts = new Attempts(() => {
    this.#follows = false;
    this.#showAttempt(this.#attempts.steps.length);
    this.#address();
  });
  #text = new PuzzleText({
    onPuzzle: (cells, note) => this.#setPuzzle(cells, { origin: note ?? "" }),
    onPasteError: (text) => say(this.#message, text, "error"),
    takesPaste: (target) =>
      this.#visible &&
      (this.#grid.contains(target) || !target.matches?.("input, textarea, select")),
  });
  #ready;

  constructor() {
    const select = byId("solve-checkpoint");
    select.addEventListener("change", () => this.#choose(select.value, true));
    onClick(byId("solve-think"), () => this.#think());
    byId("solve-grid").addEventListener("keydown", ({ key }) => key === "Enter" && this.#think());
    onClick(byId("solve-stop"), () => this.#stop());
    onClick(byId("solve-clear"), () => this.#clear());
    onClick(byId("solve-example"), () => this.#loadExample());
    onClick(byId("solve-link"), async () => say(this.#message, await this.#link.copy()));
    onClick(byId("player-continue"), () => this.#continue());
    this.#ready = this.#load();
  }

  setVisible(visible) {
    this.#visible = visible;
    if (!visible) this.#player.pause();
    else this.#address();
  }

  /** Show an example of a data set, of which it is in this place: {data, split, index}. */
  async open({ look, place, checkpoint, example }) {
    const { data } = place;
    await this.#ready;
    const fitting = this.#checkpoints.filter((one) => sameLook(one, look));
    const wanted = [
      checkpoint,
      this.#checkpoint?.id,
      fitting.find((c) => c.data_path_id === data)?.id,
    ];
    const chosen = wanted.find((id) => fitting.some((one) => one.id === id)) ?? fitting[0]?.id;
    if (chosen === undefined) {
      say(this.#message, `No checkpoint fits the grids of ${data}: train one on it.`, "error");
      return;
    }
    byId("solve-checkpoint").value = chosen;
    this.#choose(chosen, false);
    this.#setExample(example, place);
    byId("solve-think").focus();
  }

  async #load() {
    setEnabled(byId("solve-think"), false);
    try {
      const [found, sets] = await Promise.all([
        getJson("/api/checkpoints"),
        getJson("/api/datasets").catch(() => ({ datasets: [] })),
      ]);
      this.#checkpoints = found.checkpoints;
      this.#datasets = sets.datasets;
      const options = found.checkpoints.map((one) => ({ value: one.id, text: describe(one) }));
      setOptions(byId("solve-checkpoint"), options, found.default);
      if (options.length) {
        setEnabled(byId("solve-think"), true);
        this.#choose(byId("solve-checkpoint").value, true);
        if (this.#shared !== null) this.openShared(this.#shared);
      } else this.#noCheckpoints();
    } catch (error) {
      setEnabled(byId("solve-think"), true);
      this.#fail(error);
    }
  }

  /** Show what a link asks for: text by name, as `sharedIn` gives it. */
  async openShared(shared) {
    this.#opening = shared;
    await this.#ready;
    this.#shared = this.#checkpoint === null ? shared : null;
    if (this.#shared !== null || this.#opening !== shared) return; // why is said already
    const found = this.#checkpoints.find((one) => one.id === shared.model);
    const fault =
      faultOf(shared) ??
      (found ? null : `This link asks the model “${shared.model}”, which is not here.`);
    if (fault) {
      this.#loading.stop();
      this.#opening = null;
      say(this.#message, fault, "error");
      return;
    }
    byId("solve-checkpoint").value = found.id;
    this.#choose(found.id, false);
    try {
      await this.#showShared(shared);
    } catch (error) {
      if (!isAbort(error)) this.#fail(error);
    } finally {
      if (this.#opening === shared) this.#opening = null;
    }
  }

  async #showShared({ model, puzzle, data, split, index, attempt, step, ...asked }) {
    const signal = this.#loading.start();
    const read = await postJson("/api/read", { checkpoint: model, text: puzzle }, signal);
    if (read.error) {
      say(this.#message, `The puzzle of this link does not fit ${model}: ${read.error}.`, "error");
      return;
    }
    const place = { data, split, index: Number(index) };
    const unlessAborted = (error) => {
      if (isAbort(error)) throw error;
      return null;
    };
    const example = data && (await getJson("/api/example", place, signal).catch(unlessAborted));
    this.#opening = null;
    if (example?.puzzle === read.puzzle) this.#setExample(example, place);
    else this.#setPuzzle(Array.from(read.puzzle));
    const given = Object.entries(asked).filter(([, value]) => value !== null);
    const left = step === null ? {} : ONCE; // what the link of an answer does not say
    this.#asking.fill({ ...left, ...Object.fromEntries(given) });
    if (step === null && !this.#asking.problem) return;
    await this.#think();
    if (!this.#attempts.count || this.#running) return;
    this.#attempts.show(Math.min(Math.max(1, attempt ?? 1), this.#attempts.count));
    this.#follows = false;
    this.#showAttempt(Math.min(step, this.#attempts.steps.length));
    this.#address();
  }

  /** Let the address say what is shown. */
  #address() {
    if (!this.#visible || this.#running || this.#checkpoint === null || this.#opening) return;
    const thought = this.#attempts.count > 0 && this.#asked !== null;
    const { number: attempt } = this.#attempts;
    const asked = attempt === 1 ? this.#asked : this.#askedAll;
    const thinking = thought ? { ...asked, attempt, step: this.#player.position } : {};
    const puzzle = { puzzle: this.#puzzle.join(""), ...this.#place };
    this.#link.show({ model: this.#checkpoint.id, ...puzzle, ...thinking });
  }

  #noCheckpoints() {
    say(
      this.#message,
      "There are no checkpoints yet. Train one, for example with “make quickstart”, then reload this page.",
    );
  }

  #choose(id, withExample) {
    const before = this.#checkpoint;
    this.#checkpoint = this.#checkpoints.find((one) => one.id === id);
    this.#asking.fit(this.#checkpoint);
    for (const id of ["solve-clear", "solve-link"]) setEnabled(byId(id), true);
    const source = this.#source();
    setEnabled(byId("solve-example"), source !== null);
    byId("solve-example").title = source ? "" : "No data set with such grids was found";
    if (before && sameLook(before, this.#checkpoint)) {
      const known = { answer: this.#answer, identity: this.#identity, place: this.#place };
      this.#setPuzzle(this.#puzzle, { ...known, origin: byId("solve-origin").textContent });
      return;
    }
    this.#grid.setLook(this.#checkpoint);
    const { symbols } = this.#checkpoint;
    for (const key of byId("solve-legend").querySelectorAll(".key"))
      key.textContent = Array.from(symbols).at(-1);
    for (const item of byId("solve-legend").querySelectorAll(".of-cells"))
      item.hidden = !hasUnits(this.#checkpoint);
    this.#clear();
    if (withExample && source) this.#loadExample(0);
  }

  #source() {
    return sourceFor(this.#checkpoint, this.#datasets);
  }

  /** One by its number, or another than is shown. */
  async #loadExample(index = null) {
    const { data, split, examples } = this.#source();
    const place = { data, split, index: index ?? anotherOf(examples, this.#place?.index ?? null) };
    const signal = this.#loading.start();
    try {
      this.#setExample(await getJson("/api/example", place, signal), place);
    } catch (error) {
      if (!isAbort(error)) this.#fail(error);
    }
  }

  #clear() {
    const blank = this.#checkpoint.rules.blank ?? this.#checkpoint.symbols[0];
    this.#setPuzzle(Array(cellCount(this.#checkpoint)).fill(blank));
  }

  /** As the server gives it, and where it was: {data, split, index}. */
  #setExample(example, place) {
    const { data, split, index } = place;
    const { puzzle, answer, identity } = questionOf(example, data);
    const origin = `example ${index} of ${data}, ${split}: the right answer is known`;
    this.#setPuzzle(puzzle, { answer, identity, place, origin });
  }

  /** Another puzzle: whatever was thought about the one before is gone. */
  #setPuzzle(cells, { answer = null, identity = null, place = null, origin = "" } = {}) {
    this.#loading.stop();
    this.#thinking.stop();
    this.#puzzle = cells;
    this.#answer = answer;
    this.#identity = identity;
    this.#place = place;
    this.#fault = null;
    this.#attempts.begin();
    this.#asked = null;
    this.#offers.hide();
    this.#inside.follow(null);
    this.#others.follow({ puzzle: cells, answer, identity }, this.#checkpoint, this.#checkpoints);
    byId("solve-origin").textContent = origin;
    this.#text.show(cells, this.#checkpoint);
    this.#player.clear();
    this.#showGrid();
    this.#tellPuzzle();
    this.#setRunning(false);
    this.#address();
  }

  #edit(cell, symbol) {
    if (symbol === this.#puzzle[cell]) return;
    const hadSteps = this.#attempts.count > 0;
    this.#setPuzzle(this.#puzzle.with(cell, symbol));
    if (hadSteps && this.#message.dataset.kind !== "error")
      say(this.#message, "The puzzle has changed: press Think again.");
  }

  #tellPuzzle() {
    const cells = [...conflicts(this.#puzzle, this.#checkpoint)];
    const symbols = [...new Set(cells.map((cell) => this.#puzzle[cell]))].sort().join(", ");
    if (cells.length)
      say(this.#message, `The marked cells contradict one another: ${symbols}.`, "error");
    else say(this.#message, this.#hint());
  }

  /** What to do, or what is missing. */
  #hint() {
    const { rules } = this.#checkpoint;
    if (rules.without_name && this.#identity === null)
      return `No example of a data set: ${rules.without_name}.`;
    if (!this.#isOpen()) return READY;
    return this.#grid.isEditable ? HOW_TO_TYPE : HOW_TO_OPEN;
  }

  #isOpen() {
    return this.#puzzle.every((symbol) => isEmpty(symbol, this.#checkpoint));
  }

  #showAttempt(position) {
    this.#player.update(this.#attempts.steps, position, this.#attempts.haltedAt);
    this.#showGrid();
    this.#showContinue();
  }

  #drawNewest() {
    this.#showAttempt(this.#follows ? this.#attempts.steps.length : this.#player.position);
  }

  #showGrid() {
    const step = this.#attempts.steps[this.#player.position - 1];
    this.#grid.show(step ? step.cells : puzzleCells(this.#puzzle, this.#checkpoint, this.#fault));
  }

  #setRunning(running) {
    const stop = byId("solve-stop");
    setEnabled(stop, running);
    if (!running && document.activeElement === stop) byId("solve-think").focus();
    byId("solve-grid").setAttribute("aria-busy", String(running));
    this.#running = running;
    if (running) this.#offers.hide();
    this.#showContinue();
  }

  #stop() {
    this.#thinking.stop();
    this.#setRunning(false);
    this.#drawing.now();
    const { count: begun } = this.#attempts;
    const place = begun > 1 ? ` of attempt ${begun}` : "";
    const taken = begun ? this.#attempts.stepsOf(begun).length : 0;
    say(this.#message, `Stopped after ${count(taken, "step")}${place}.`);
    this.#address();
    this.#lookInside();
  }

  #think() {
    if (this.#checkpoint === null) {
      this.#ready = this.#load(); // it failed before
      return;
    }
    const problem = this.#asking.problem;
    if (problem) {
      say(this.#message, problem.text, "error");
      problem.field.focus();
      return;
    }
    const asked = this.#asking.values;
    this.#attempts.begin(asked);
    this.#follows = true;
    this.#player.clear();
    return this.#run(asked);
  }

  /** In another way, which an answer that was not found is worth. */
  #thinkHarder(values) {
    byId("solve-think").focus();
    this.#asking.fill(values);
    this.#think();
  }

  /**
   * Beyond halting: all steps of the first attempt again, more of them, and the slider stays where
   * it is.
   */
  #continue() {
    this.#follows = false;
    const steps = this.#attempts.steps.length + this.#moreSteps();
    this.#attempts.voted = [];
    this.#run({ ...this.#asking.values, ...ONCE, noise: 0, halting: "max_steps", steps }, true);
  }

  async #run(asked, goesOn = false) {
    this.#loading.stop();
    const signal = this.#thinking.start();
    const puzzle = { puzzle: this.#puzzle.join(""), identity: this.#identity };
    const body = { checkpoint: this.#checkpoint.id, ...puzzle, ...asked };
    this.#fault = null;
    this.#asked = asked;
    if (!goesOn) this.#askedAll = asked;
    this.#setRunning(true);
    this.#showGrid();
    say(this.#message, goesOn ? "Thinking on …" : "Thinking …");
    try {
      for await (const record of think(body, signal)) this.#take(record, asked);
      this.#tellBest(asked);
    } catch (error) {
      if (isAbort(error)) return;
      this.#fail(error);
    }
    this.#setRunning(false);
    this.#drawing.now();
    this.#address();
    this.#lookInside();
  }

  /** At the first attempt, the puzzle as it is. */
  #lookInside() {
    if (this.#attempts.count === 0) return;
    const steps = this.#attempts.stepsOf(1).length;
    const asked = { puzzle: this.#puzzle.join(""), identity: this.#identity };
    const question = { checkpoint: this.#checkpoint.id, ...asked, halting: "max_steps", steps };
    this.#inside.follow(question, this.#checkpoint, this.#puzzle);
  }

  #take(record, asked) {
    const areMany = countOf(asked) > 1;
    if (record.versions) this.#attempts.versions = record.versions;
    if (record.voted) this.#attempts.voted = record.voted;
    const moves = this.#follows && this.#attempts.isOver; // those side by side take turns
    const previous = this.#attempts.before(record);
    const step = describeStep(record, previous, this.#puzzle, this.#answer, this.#checkpoint);
    const halted = record.halted && asked.halting === "learned" && record.step < asked.steps;
    this.#attempts.add(step, halted ? record.step : null);
    if (moves) this.#attempts.show(record.attempt);
    if (record.step === 1 && areMany)
      say(this.#message, `Thinking: ${this.#attempts.name(record.attempt)} …`);
    if (record.last && areMany) this.#attempts.best = record.best;
    if (record.last && record.best !== this.#attempts.number) {
      this.#attempts.show(record.best);
      this.#follows = true;
    }
    this.#drawing.ask();
  }

  #tellBest(asked) {
    const last = this.#attempts.steps.at(-1);
    const halted = this.#attempts.haltedAt === last.step;
    const where = countOf(asked) > 1 ? ` in ${this.#attempts.name(last.attempt)}` : "";
    const votes = this.#attempts.votesOf(last.attempt);
    const by = votes && `, by ${votes}`;
    const told = `${halted ? "Halted" : "Ended"} after ${count(last.step, "step")}${where}${by}: ${verdict(last, this.#answer)}.`;
    say(this.#message, told, isSolved(last, this.#answer) ? "success" : "info");
    if (isFailed(last, this.#answer))
      this.#offers.show(asked, this.#checkpoint, this.#asking.most, halted);
  }

  #moreSteps() {
    return Math.min(MORE_STEPS, this.#asking.most.steps - this.#attempts.steps.length);
  }

  /** Only the first attempt can go on: the server draws others anew for each request. */
  #showContinue() {
    const more = this.#moreSteps();
    const button = byId("player-continue");
    const hadFocus = document.activeElement === button;
    button.hidden = !this.#attempts.steps.length || this.#attempts.number > 1 || more === 0;
    button.textContent = `Continue for ${count(more, "more step")}`;
    setEnabled(button, !this.#running);
    if (hadFocus && button.hidden) byId("solve-think").focus();
  }

  #fail(error) {
    if (!(error instanceof ApiError)) throw error;
    this.#endRetry();
    if (error.retryAfter !== null) {
      this.#tellRetry(error);
      return;
    }
    say(this.#message, error.message, "error");
    const cell =
      error.column ??
      (error.status === 422 ? [...conflicts(this.#puzzle, this.#checkpoint)][0] : null);
    if (cell === null || cell === undefined) return;
    this.#fault = cell;
    this.#showGrid();
    this.#grid.focusCell(cell);
  }

  #endRetry() {
    if (this.#retryTimer === null) return;
    clearTimeout(this.#retryTimer);
    this.#retryTimer = null;
    setEnabled(byId("solve-think"), true);
  }

  #tellRetry({ message, retryAfter }) {
    const told = `${sentence(message)} Try again in ${count(retryAfter, "second")}.`;
    setEnabled(byId("solve-think"), false);
    say(this.#message, told, "error");
    this.#retryTimer = setTimeout(() => {
      this.#endRetry();
      if (this.#message.textContent === told) say(this.#message, "You can try again now.");
    }, 1000 * retryAfter);
  }
}

function describe({ id, grid_shape: [rows, columns], task }) {
  const kind = task ? `${task} ` : "";
  return `${id} (${kind}${rows} × ${columns})`;
}
