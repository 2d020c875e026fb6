// What the steps of a rollout say about a puzzle: which cells changed, which are wrong.

import { conflicts, givens } from "./rules.js";

/** The cells of the puzzle itself, as Grid shows them; `fault` is the cell the server refused. */
export function puzzleCells(puzzle, look, fault) {
  const contradicting = conflicts(puzzle, look);
  const given = givens(puzzle, look);
  return puzzle.map((symbol, cell) => ({
    symbol,
    given: given[cell],
    invalid: contradicting.has(cell) || cell === fault,
  }));
}

/**
 * One step as the player and the grid want it.
 *
 * record: a line of the server; previous: the step before it, or null; answer: the right one
 * ("?" where unknown), or null. Cells are wrong where they differ from the right answer; without
 * one, where a given was changed or the rules are broken.
 */
export function describeStep(record, previous, puzzle, answer, look) {
  const symbols = Array.from(record.answer);
  const given = givens(puzzle, look);
  const kept = symbols.map((symbol, cell) => given[cell] && symbol === puzzle[cell]);
  const contradicting = answer === null ? conflicts(symbols, look) : null;
  const isWrong = (symbol, cell) =>
    answer === null
      ? (given[cell] || contradicting.has(cell)) && !kept[cell]
      : answer[cell] !== "?" && symbol !== answer[cell];
  const cells = symbols.map((symbol, cell) => ({
    symbol,
    given: kept[cell],
    confidence: record.confidence[cell],
    changed: previous !== null && previous.cells[cell].symbol !== symbol,
    wrong: Boolean(isWrong(symbol, cell)),
  }));
  const total = record.confidence.reduce((sum, value) => sum + value, 0);
  return {
    ...record,
    cells,
    changed: previous === null ? null : cells.filter((cell) => cell.changed).length,
    wrong: answer === null && !look.rules.units.length ? null : cells.filter((cell) => cell.wrong).length,
    meanConfidence: total / cells.length,
  };
}

/** Whether a step's answer is known to be right. */
export const isSolved = (step, answer) =>
  answer !== null ? step.wrong === 0 : step.valid === true;

/** Whether it is known not to be. */
export const isFailed = (step, answer) =>
  answer !== null ? step.wrong > 0 : step.valid === false;

/** In words, whether a step's answer is right. */
export function verdict(step, answer) {
  if (answer !== null)
    return step.wrong ? `${step.wrong} of ${step.cells.length} cells wrong` : "solved exactly";
  return (
    { true: "a valid solution", false: "not a valid solution" }[step.valid] ??
    "the right answer is not known"
  );
}
