// The attempts at one puzzle: their steps, which one is shown, and the list to choose from.

import { ONCE, countOf } from "./asking.js";
import { byId, count, html } from "./dom.js";

export class Attempts {
  #asked = ONCE;
  #all = []; // {steps, haltedAt} of each attempt that has begun
  #shown = 0;
  #best = null;
  #voted = []; // {attempt, votes} of the answers that may be given, where versions vote
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
  begin(asked = ONCE) {
    this.#asked = asked;
    this.#all = [];
    this.#shown = 0;
    this.#best = null;
    this.#voted = [];
    this.#list();
  }

  /** So many versions are there to vote, of those that were asked for. */
  set versions(votes) {
    this.#asked = { ...this.#asked, votes };
  }

  set voted(voted) {
    this.#voted = voted;
  }

  /** Such as “20 of 31 votes”; empty where none are counted for the attempt's answer. */
  votesOf(number) {
    const found = this.#voted.find(({ attempt }) => attempt === number);
    return found ? `${found.votes} of ${this.#asked.votes} votes` : "";
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
    return countOf(this.#asked) > 1;
  }

  /** Whether the one that is shown has ended, or has not begun. */
  get isOver() {
    return this.steps.at(-1)?.halted ?? true;
  }

  /** Such as “attempt 2 of 8, a symmetric version”. */
  name(number) {
    const { votes, restarts, rollouts } = this.#asked;
    const guessed = this.#all[number - 1]?.steps.at(-1)?.guessed?.length ?? 0;
    const kinds = [
      [1, "the puzzle as it is"],
      [votes, "a symmetric version"],
      [votes + restarts, "another start state"],
      [votes + restarts + rollouts - 1, "with noise"],
      [Infinity, `with ${count(guessed, "guess", "guesses")}`],
    ];
    const [, kind] = kinds.find(([last]) => number <= last);
    return `attempt ${number} of ${countOf(this.#asked)}, ${kind}`;
  }

  /** The step before one that has just arrived, or null. */
  before({ attempt, step }) {
    return this.#all[attempt - 1]?.steps[step - 2] ?? null;
  }

  add(step, haltedAt) {
    const isNew = this.#all[step.attempt - 1] === undefined;
    while (this.#all.length < step.attempt) this.#all.push({ steps: [], haltedAt: null });
    const attempt = this.#all[step.attempt - 1];
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
    const last = this.#all[index].steps.at(-1);
    const isGivenUp = this.#best !== null && !last?.halted;
    const judged = { true: ": valid", false: ": not valid" }[last?.valid] ?? "";
    const outcome = isGivenUp ? ": given up" : judged;
    const counts = this.#best === index + 1 ? "; this one counts" : "";
    const votes = this.votesOf(index + 1);
    return name[0].toUpperCase() + name.slice(1) + outcome + (votes && `: ${votes}`) + counts;
  }
}
