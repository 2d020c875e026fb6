// The model in this page: one ACT step is a graph that ONNX Runtime computes in WebAssembly.
//
// `page` is model/page.json: checkpoint (as the server lists it), facts (as hrm export --onnx stores
// them) and versions, each {place, tokens}: cell c of a version holds tokens[puzzle[place[c]]].

import * as ort from "../runtime/ort.wasm.min.mjs";
import { conflicts, givens } from "./rules.js";

ort.env.wasm.numThreads = 1; // more need headers that a plain host does not send
ort.env.wasm.wasmPaths = new URL("../runtime/", import.meta.url).href;

const session = ort.InferenceSession.create(new URL("../model/model.onnx", import.meta.url).href);
session.catch(() => {}); // told when a puzzle is asked

/** All steps of all attempts, one attempt after the other, as the server's lines. */
export async function* think(page, asked) {
  const { checkpoint, facts, versions } = page;
  const symbols = Array.from(checkpoint.symbols);
  const puzzle = Array.from(asked.puzzle);
  const tokens = puzzle.map((symbol) => symbols.indexOf(symbol));
  const count = asked.votes + asked.restarts + asked.rollouts - 1;
  const ended = [];
  for (let attempt = 1; attempt <= count; attempt++) {
    const version = attempt > 1 && attempt <= asked.votes ? versions[attempt - 2] : null;
    const restarts = attempt > asked.votes && attempt <= asked.votes + asked.restarts;
    const noise = attempt > asked.votes + asked.restarts ? asked.noise : 0;
    const shown = version ? version.place.map((cell) => version.tokens[tokens[cell]]) : tokens;
    let step = 0;
    for await (const found of steps(facts, shown, { restarts, noise })) {
      step += 1;
      const { answer, confidence } = version ? undo(version, found) : found;
      const record = {
        attempt,
        step,
        answer: answer.map((token) => symbols[token]).join(""),
        confidence,
        halt_probability: found.sure,
        halted: step === asked.steps || (asked.halting === "learned" && found.halts),
        last: false,
        best: null,
      };
      record.valid = judge(record.answer, puzzle, checkpoint);
      if (record.halted) {
        ended.push(record);
        record.last = attempt === count || (asked.select === "valid" && record.valid === true);
        if (record.last) record.best = choose(ended, asked.select).attempt;
      }
      yield record;
      if (record.last) return;
      if (record.halted) break;
    }
  }
}

/** The states of the first step are zeros: the model takes its own start states then. */
async function* steps(facts, tokens, { restarts, noise }) {
  const run = await session;
  const shapes = Object.entries(facts.states);
  const tensor = (shape, fill) => {
    const data = new Float32Array(shape.reduce((size, one) => size * one, 1)).map(fill);
    return new ort.Tensor("float32", data, [1, ...shape]);
  };
  let states = Object.fromEntries(
    shapes.map(([name, shape]) => {
      const vector = Float32Array.from({ length: shape.at(-1) }, cutNormal);
      return [name, tensor(shape, (_, i) => (restarts ? vector[i % vector.length] : 0))];
    }),
  );
  const given = { tokens: new ort.Tensor("int32", Int32Array.from(tokens), [1, tokens.length]) };
  if (run.inputNames.includes("puzzle_identifiers"))
    given.puzzle_identifiers = new ort.Tensor("int32", [facts.unseen_identifier], [1]);
  for (let begins = !restarts; ; begins = false) {
    const found = await run.run({ ...given, ...states, begins: new ort.Tensor("bool", [begins], [1]) });
    const sure = 1 / (1 + Math.exp(-found.q_halt.data[0]));
    const halts = Boolean(found.wants_to_halt.data[0]) && sure >= facts.halt_probability;
    yield { ...answers(found.logits), sure, halts };
    states = Object.fromEntries(
      shapes.map(([name, shape]) => {
        const { data } = found[`next_${name}`];
        return [name, noise ? tensor(shape, (_, i) => data[i] + noise * normal()) : found[`next_${name}`]];
      }),
    );
  }
}

/** The likeliest token of each cell, and its probability. */
function answers({ data, dims: [, cells, size] }) {
  const answer = [];
  const confidence = [];
  for (let cell = 0; cell < cells; cell++) {
    const logits = data.subarray(cell * size, (cell + 1) * size);
    const most = Math.max(...logits);
    answer.push(logits.indexOf(most));
    confidence.push(1 / logits.reduce((sum, logit) => sum + Math.exp(logit - most), 0));
  }
  return { answer, confidence };
}

/** An answer to a version as one to the puzzle. */
function undo({ place, tokens }, found) {
  const answer = [];
  const confidence = [];
  place.forEach((cell, shown) => {
    answer[cell] = tokens.indexOf(found.answer[shown]);
    confidence[cell] = found.confidence[shown];
  });
  return { answer, confidence };
}

/** Whether an answer keeps the rules and what is given; null where no rules are known here. */
function judge(answer, puzzle, look) {
  if (!look.rules.judged) return null;
  const cells = Array.from(answer);
  const given = givens(puzzle, look);
  const isKept = puzzle.every((symbol, cell) => !given[cell] || cells[cell] === symbol);
  const isFull = cells.every((symbol) => !look.rules.empty.includes(symbol));
  return isKept && isFull && conflicts(cells, look).size === 0;
}

/** The answer that counts; of equals that of the first attempt. */
function choose(ended, select) {
  const votes = (one) => ended.filter(({ answer }) => answer === one.answer).length;
  const valid = select === "valid" ? ended.filter((one) => one.valid) : [];
  if (valid.length) return valid[0];
  const most = select === "majority" ? Math.max(...ended.map(votes)) : 0;
  return ended
    .filter((one) => votes(one) >= most)
    .reduce((best, one) => (one.halt_probability > best.halt_probability ? one : best));
}

const normal = () =>
  Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());

/** Cut at 2 standard deviations and as wide as before, as the model's own start states are. */
function cutNormal() {
  const drawn = normal();
  return Math.abs(drawn) <= 2 ? drawn / 0.87962566 : cutNormal();
}
