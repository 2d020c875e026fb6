// Where "Solve" takes its examples from.

import { sameLook } from "./rules.js";

/** The split for a checkpoint, {data, split, examples}; null where no data set has such grids. */
export function sourceFor(checkpoint, datasets) {
  const fitting = datasets.filter((one) => sameLook(one, checkpoint));
  const found = fitting.find((one) => one.id === checkpoint.data_path_id) ?? fitting[0];
  if (!found) return null;
  const { id: data, splits } = found;
  const split = splits.test ? "test" : Object.keys(splits)[0];
  return { data, split, examples: splits[split].examples };
}

/** The number of an example at random, not the one that is shown (null: none is). */
export function anotherOf(examples, shown) {
  const drawn = Math.floor(Math.random() * Math.max(1, examples - 1));
  return shown !== null && drawn >= shown ? Math.min(drawn + 1, examples - 1) : drawn;
}
