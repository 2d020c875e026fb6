// A few test puzzles of a run's data set, answered by each checkpoint that appears in training.

import { AnswerPlace, ask, questionOf } from "./answers.js";
import { ApiError, getJson } from "./api.js";
import { byId, html, say } from "./dom.js";
import { verdict } from "./rollout.js";

const PUZZLES = 3;
const MOST = 6; // checkpoints of a run whose answers are kept
const SPLIT = "test";
const POLL_SECONDS = 2;
const LASTING = [404, 422]; // the same question would be refused again

const NO_CHECKPOINT = "This run has no checkpoint yet: the first one answers some test puzzles here.";
const NO_DATA = "This run's data set is not here, or has no test puzzles: there is nothing to answer.";

const numbered = (step) => (step === null ? "The checkpoint" : `Step ${step.toLocaleString("en")}`);

export class TestPuzzles {
  // name -> {questions, seen, done}: null or a list; {step, element} of checkpoints, the newest first;
  // the step that need not be asked again
  #runs = new Map();
  #shown = null; // one of them
  #message = byId("puzzles-message");
  #news = byId("puzzles-news");
  #list = byId("puzzles-list");

  /** Show what has been seen of a run. */
  show(run) {
    if (!this.#runs.has(run)) this.#runs.set(run, { questions: null, seen: [], done: null });
    this.#shown = this.#runs.get(run);
    this.#shown.done = this.#shown.seen[0]?.step ?? null;
    say(this.#message, "");
    this.#draw();
  }

  /** Forget what has been seen of a run, in whose place another has come. */
  forget(run) {
    this.#runs.delete(run);
    this.show(run);
  }

  /** Ask the run's newest checkpoint unless it was asked; seconds until the next time. */
  async poll(run, signal) {
    if (run === null) return 0.2; // the list of runs is on its way
    try {
      const { runs } = await getJson("/api/runs", {}, signal);
      const newest = runs.find(({ id }) => id === run)?.steps_done ?? null;
      if (newest === null) say(this.#message, NO_CHECKPOINT);
      else if (newest !== this.#shown.done) await this.#follow(run, signal);
      return POLL_SECONDS;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      say(this.#message, error.message, "error");
      return Math.max(POLL_SECONDS, error.retryAfter ?? 0);
    }
  }

  async #follow(run, signal) {
    const known = this.#shown;
    const { checkpoints } = await getJson("/api/checkpoints", {}, signal);
    const listed = checkpoints.find(({ id }) => id === run);
    if (!listed || listed.step === known.done) return; // the server has not looked again yet
    known.questions ??= await this.#questions(listed, signal);
    if (known.questions === null) {
      known.done = listed.step;
      say(this.#message, NO_DATA);
      return;
    }
    if (known.seen.length === 0) say(this.#message, `${numbered(listed.step)} is asked …`);
    try {
      const asked = known.questions.map((one) => ask(run, one, listed, signal));
      this.#add(known, listed, await Promise.all(asked));
    } catch (error) {
      if (!LASTING.includes(error.status) && !error.tookTooLong) throw error;
      known.done = listed.step;
      say(this.#message, `${numbered(listed.step)} gave no answer: ${error.message}.`, "error");
    }
  }

  /** Some from all over the test split; null: there are none. */
  async #questions({ data_path_id: data }, signal) {
    const { datasets } = await getJson("/api/datasets", {}, signal);
    const examples = datasets.find(({ id }) => id === data)?.splits[SPLIT]?.examples ?? 0;
    if (examples === 0) return null;
    const size = Math.min(PUZZLES, examples);
    const places = Array.from({ length: size }, (_, n) => Math.floor((n * examples) / size));
    const one = async (index) => {
      const example = await getJson("/api/example", { data, split: SPLIT, index }, signal);
      return { index, ...questionOf(example, data) };
    };
    return Promise.all(places.map(one));
  }

  #add(known, look, ends) {
    const step = ends[0].trainedFor;
    if (ends.some((end) => end.trainedFor !== step)) return; // a newer one came between them
    known.done = step;
    say(this.#message, "");
    if (known.seen[0]?.step === step) return;
    if (known.seen[0]?.step > step) known.seen = []; // the run began anew
    const told = `${numbered(step)}: ${wrongIn(ends)}`;
    known.seen.unshift({ step, element: this.#row(told, known.questions, look, ends) });
    known.seen.splice(MOST);
    this.#draw();
    say(this.#news, told);
  }

  #row(told, questions, look, ends) {
    const places = ends.map((end, n) => {
      const { index, answer } = questions[n];
      const place = new AnswerPlace(`example ${index}`, `${numbered(end.trainedFor)}, example ${index}`);
      place.show(end, look, verdict(end, answer));
      return place.element;
    });
    return html("div", {}, html("h4", {}, told), html("ul", { class: "answers", "aria-label": told }, ...places));
  }

  #draw() {
    this.#list.replaceChildren(...this.#shown.seen.map(({ element }) => element));
  }
}

/** Of all grids together, in words. */
function wrongIn(ends) {
  if (ends.some((end) => end.wrong === null)) return "answered";
  const wrong = ends.reduce((sum, end) => sum + end.wrong, 0);
  const cells = ends.reduce((sum, end) => sum + end.cells.length, 0);
  return wrong ? `${wrong} of ${cells} cells wrong` : "no cell wrong";
}
