// Other ways to ask for an answer that was not found: one press each, with what it costs.

import { ONCE, countOf } from "./asking.js";
import { byId, count, html } from "./dom.js";

const [VOTES, RESTARTS, ROLLOUTS, NOISE, GUESSES] = [8, 4, 16, 0.3, 64];
const MORE = 4; // times as many where they were in vain

const more = (asked, none, first, most) =>
  asked === none ? Math.min(first, most) : Math.min(MORE * asked, most);

/** {name, what, values} of each way that asks more than was asked; halted: whether the model did. */
function waysFrom(asked, { rules, guess_steps }, most, halted) {
  const votes = more(asked.votes, 1, VOTES, most.votes);
  const restarts = more(asked.restarts, 0, RESTARTS, most.restarts);
  const rollouts = more(asked.rollouts, 1, ROLLOUTS, most.rollouts);
  const guesses = guess_steps ? more(asked.guesses, 0, GUESSES, most.guesses) : 0;
  const steps = Math.min(2 * asked.steps, most.steps);
  const versions = rules.votes_by_name ? "versions that the model knows" : "symmetric versions";
  const noise = asked.noise || NOISE;
  const halting = halted ? "max_steps" : asked.halting; // else it would halt there again
  const all = [ // what helps most first, where rules tell a right answer
    [guesses > asked.guesses, count(guesses, "guess", "guesses"), "likely cells filled in", { guesses, select: "valid" }],
    [votes > asked.votes, count(votes, "vote"), versions, { votes }],
    [rollouts > asked.rollouts, count(rollouts, "rollout"), "with noise", { rollouts, noise }],
    [restarts > asked.restarts, count(restarts, "restart"), "other start states", { restarts }],
    [steps > asked.steps, count(steps, "step"), "one longer attempt", { steps, halting }],
  ];
  return all
    .filter(([asksMore]) => asksMore)
    .map(([, name, what, values]) => ({
      name,
      what,
      values: { ...ONCE, steps: asked.steps, halting: asked.halting, noise, ...values },
    }));
}

function costOf(values, guessSteps) {
  const { guesses, steps } = values;
  if (guesses) {
    const total = (steps + guesses * guessSteps).toLocaleString("en");
    return `at most ${steps} + ${guesses} × ${guessSteps} = ${total} ACT steps`;
  }
  const attempts = countOf(values);
  const total = (attempts * steps).toLocaleString("en");
  return attempts === 1
    ? `at most ${count(values.steps, "ACT step")}`
    : `at most ${attempts} × ${values.steps} = ${total} ACT steps`;
}

export class Offers {
  #onChoose;
  #host = byId("solve-offers");

  /** `onChoose(values)`: ask so; values as `Asking.fill` takes them. */
  constructor(onChoose) {
    this.#onChoose = onChoose;
  }

  hide() {
    this.#host.hidden = true;
  }

  /** asked: in vain; most: `Asking.most`; halted: whether the model wanted to halt. */
  show(asked, checkpoint, most, halted) {
    const ways = waysFrom(asked, checkpoint, most, halted);
    byId("solve-ways").replaceChildren(
      ...ways.map(({ name, what, values }) => {
        const cost = html("span", { class: "cost" }, `${what}: ${costOf(values, checkpoint.guess_steps)}`);
        const button = html("button", { type: "button" }, html("b", {}, name), " ", cost);
        button.addEventListener("click", () => this.#onChoose(values));
        return html("li", {}, button);
      }),
    );
    this.#host.hidden = ways.length === 0;
  }
}
