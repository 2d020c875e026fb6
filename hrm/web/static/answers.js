// Answers side by side: small grids, each with its name and what is to be said of it.
//
// A question is {puzzle, answer, identity}: symbols, one per cell; likewise, "?" where unknown, or null;
// {data, identifier}, or null for a puzzle that no model may know.

import { postJson } from "./api.js";
import { html } from "./dom.js";
import { Grid } from "./grid.js";
import { describeStep } from "./rollout.js";
import { hasUnits } from "./rules.js";

/** An example of a data set, as the server gives it, as a question; a negative identifier is none. */
export function questionOf({ puzzle, answer, identifier }, data) {
  const known = Array.from(answer);
  return {
    puzzle: Array.from(puzzle),
    answer: known.some((symbol) => symbol !== "?") ? known : null,
    identity: identifier < 0 ? null : { data, identifier },
  };
}

/**
 * The end of a checkpoint's one attempt, until it halts: a step as `describeStep` gives it, with
 * `trainedFor`, the step of training after which the checkpoint was saved.
 */
export async function ask(checkpoint, { puzzle, answer, identity }, look, signal) {
  const body = { checkpoint, puzzles: [puzzle.join("")], identity };
  const { solutions, step } = await postJson("/api/solve", body, signal);
  return { ...describeStep(solutions[0], null, puzzle, answer, look), trainedFor: step };
}

/** A place for one answer, which may be still to come, in a list of class "answers". */
export class AnswerPlace {
  #label;
  #host = html("div", { class: "grid-host" });
  #text = html("p");
  element;

  /** `label` names the grid where `name` alone would be said of several. */
  constructor(name, label = name) {
    this.#label = label;
    this.element = html("li", {}, this.#host, html("p", { class: "name" }, name), this.#text);
    this.say("Thinking …");
  }

  /** end: as `ask` gives it; outcome: how good it is, in words. */
  show(end, look, outcome, more = "") {
    const grid = new Grid(this.#host, this.#label);
    grid.setLook(look);
    grid.show(end.cells);
    if (hasUnits(look)) this.element.style.setProperty("--least", look.grid_shape[1]);
    this.say(more);
    this.#text.prepend(html("b", {}, outcome), " ");
  }

  say(text, kind = "info") {
    this.#text.className = kind === "error" ? "error" : "hint";
    this.#text.textContent = text;
  }
}
