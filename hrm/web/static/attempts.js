// The attempts at one puzzle: their steps, which one is shown, and the list to choose from.

import { byId, html } from "./dom.js";

export class Attempts {
  #votes = 1;
  #total = 1;
  #all = []; // {steps, haltedAt} of each attempt that has begun
  #shown = 0;
  #best = null;
  #host = byId("player-attempts");
  #select = byId("player-attempt");

  /** `onChoose()`: the user wants to see another attempt. */
  constructor(onChoose) {
    this.#select.addEventListener("change", () => {
      this.#shown = this.#select.selectedIndex;
      onChoose();
    });
  }

  /** Forget all; so many are to come at most. */
  begin(votes = 1, restarts = 0) {
    this.#votes = votes;
    this.#total = votes + restarts;
    this.#all = [];
    this.#shown = 0;
    this.#best = null;
    this.#list();
  }

  get count() {
    return this.#all.length;
  }

  get number() {
    return this.#shown + 1;
  }

  get steps() {
    return this.#all[this.#shown]?.steps ?? [];
  }

  stepsOf(number) {
    return this.#all[number - 1].steps;
  }

  get haltedAt() {
    return this.#all[this.#shown]?.haltedAt ?? null;
  }

  get areMany() {
    return this.#total > 1;
  }

  /** Such as “attempt 2 of 8, a symmetric version”. */
  name(number) {
    const kind =
      number === 1
        ? "the puzzle as it is"
        : number <= this.#votes
          ? "a symmetric version"
          : "another start state";
    return `attempt ${number} of ${this.#total}, ${kind}`;
  }

  /** The step before one that has just arrived, or null. */
  before({ attempt, step }) {
    return this.#all[attempt - 1]?.steps[step - 2] ?? null;
  }

  add(step, haltedAt) {
    const isNew = this.#all[step.attempt - 1] === undefined;
    const attempt = (this.#all[step.attempt - 1] ??= { steps: [], haltedAt: null });
    attempt.steps[step.step - 1] = step;
    attempt.haltedAt ??= haltedAt;
    if (isNew || step.halted) this.#list();
  }

  /** All have run: this is the one whose answer counts. */
  set best(number) {
    this.#best = number;
    this.#list();
  }

  show(number) {
    this.#shown = number - 1;
    this.#select.selectedIndex = this.#shown;
  }

  #list() {
    this.#host.hidden = !this.areMany || this.#all.length === 0;
    const { options } = this.#select;
    options.length = Math.min(options.length, this.#all.length);
    this.#all.forEach((_, index) => {
      const text = this.#describe(index);
      if (options[index] === undefined) this.#select.append(html("option"));
      if (options[index].text !== text) options[index].text = text;
    });
    this.#select.selectedIndex = this.#shown;
  }

  #describe(index) {
    const name = this.name(index + 1);
    const valid = this.#all[index].steps.at(-1)?.valid;
    const outcome = { true: ": valid", false: ": not valid" }[valid] ?? "";
    const counts = this.#best === index + 1 ? "; this one counts" : "";
    return name[0].toUpperCase() + name.slice(1) + outcome + counts;
  }
}
