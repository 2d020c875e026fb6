// How to ask: halting, steps, votes, restarts, rollouts, which answer counts; the fields for it.

import { byId } from "./dom.js";

const NUMBERS = ["steps", "votes", "restarts", "rollouts", "noise", "guesses"];
const CHOICES = ["halting", "select"];
const VOTES = "Votes: the puzzle and symmetric versions of it, so many in all.";
const VOTES_BY_NAME =
  "Votes: the puzzle and other versions of it that the model knows, so many in all; " +
  "the answer that most of them give counts.";
const RESTARTS = "Restarts: so many more attempts from other start states.";
const ROLLOUTS =
  "Rollouts: so many at the puzzle as it is, all but the first with noise of this strength.";
const GUESSES =
  "Guesses: then so many at most with likely symbols filled in, the likeliest first.";
const COUNTING = {
  valid: "One attempt follows another until an answer is valid; else the surest counts.",
  q_halt: "All are made, and the surest answer counts.",
  majority: "All are made, and the answer that most of them give counts.",
};

/** One attempt, at the puzzle as it is. */
export const ONCE = { votes: 1, restarts: 0, rollouts: 1, guesses: 0 };

/** How many attempts are asked for. */
export const countOf = ({ votes, restarts, rollouts, guesses }) =>
  votes + restarts + rollouts - 1 + guesses;

const fieldOf = (name) => byId(`solve-${name}`);

export class Asking {
  #rules = null;
  #guesses = false; // can be made

  constructor() {
    fieldOf("select").addEventListener("change", () => this.#explain());
  }

  /** Fields for what the task of a checkpoint can do; what it cannot do is hidden. */
  fit({ rules, max_steps: steps, guess_steps }) {
    this.#rules = rules;
    this.#guesses = guess_steps > 0;
    const { most_versions: versions, judged } = rules;
    fieldOf("steps").value = steps;
    const votes = fieldOf("votes");
    votes.max = versions;
    votes.value = Math.min(votes.value || 1, versions);
    votes.parentElement.hidden = versions === 1;
    if (!this.#guesses) fieldOf("guesses").value = 0;
    fieldOf("guesses").parentElement.hidden = !this.#guesses;
    const counts = fieldOf("select");
    const valid = counts.options[0];
    if (valid.disabled === judged) counts.value = judged ? "valid" : "q_halt";
    valid.disabled = valid.hidden = !judged;
    this.#explain();
  }

  /** The largest numbers that can be asked for. */
  get most() {
    return Object.fromEntries(NUMBERS.map((name) => [name, Number(fieldOf(name).max)]));
  }

  /** Put values, numbers or text, into their fields, but for those that are hidden. */
  fill(values) {
    for (const [name, value] of Object.entries(values))
      if (!fieldOf(name).parentElement.hidden) fieldOf(name).value = value;
    this.#explain();
  }

  /** The field that holds no possible value, and what it wants: {field, text}; or null. */
  get problem() {
    for (const name of NUMBERS) {
      const field = fieldOf(name);
      if (field.checkValidity() && field.value !== "") continue;
      const kind = field.step === "any" ? "number" : "whole number";
      const range = `from ${field.min} to ${field.max}`;
      return { field, text: `${field.labels[0].textContent}: give a ${kind} ${range}.` };
    }
    for (const name of CHOICES) {
      const field = fieldOf(name);
      if (field.value === "" || field.selectedOptions[0].disabled)
        return { field, text: `${field.labels[0].textContent}: choose one of the list.` };
    }
    return null;
  }

  /** As the server takes them. */
  get values() {
    const numbers = Object.fromEntries(NUMBERS.map((name) => [name, Number(fieldOf(name).value)]));
    if (numbers.rollouts === 1) numbers.noise = 0; // the first rollout is without
    return { ...numbers, halting: fieldOf("halting").value, select: fieldOf("select").value };
  }

  #explain() {
    const { most_versions: versions, votes_by_name } = this.#rules;
    const help = [
      ...(versions > 1 ? [votes_by_name ? VOTES_BY_NAME : VOTES] : []),
      RESTARTS,
      ROLLOUTS,
      ...(this.#guesses ? [GUESSES] : []),
      COUNTING[fieldOf("select").value] ?? "",
    ];
    byId("solve-attempts-help").textContent = help.join(" ");
  }
}
