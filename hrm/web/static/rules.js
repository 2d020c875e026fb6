// What a kind of puzzles allows, all of it as the server says: nothing here knows any task.
//
// A look is what the server tells about a checkpoint or a data set: grid_shape, box_shape, symbols,
// and its rules: blank, empty, aliases, units, wall, colors, ends, without_name, votes_by_name,
// most_versions, judged.

const LOOK = ["grid_shape", "box_shape", "symbols", "rules"];

export const sameLook = (a, b) =>
  LOOK.every((key) => JSON.stringify(a[key]) === JSON.stringify(b[key]));

export const cellCount = ({ grid_shape: [rows, columns] }) => rows * columns;

/** Whether cells are compared with one another: such grids are tables to type in. */
export const hasUnits = ({ rules }) => rules.units.length > 0;

export const isEmpty = (symbol, { rules }) => rules.empty.includes(symbol);

/** Cells whose symbol an answer must keep; none where no symbol stands for an open cell. */
export const givens = (puzzle, look) =>
  puzzle.map((symbol) => look.rules.blank !== null && !isEmpty(symbol, look));

/** Cells, in order, whose symbol stands twice in a unit: a Set. */
export function conflicts(cells, look) {
  const found = new Set();
  for (const unit of look.rules.units) {
    const seen = new Map();
    for (const cell of unit) {
      const symbol = cells[cell];
      if (isEmpty(symbol, look)) continue;
      if (seen.has(symbol)) found.add(cell).add(seen.get(symbol));
      else seen.set(symbol, cell);
    }
  }
  return new Set([...found].sort((a, b) => a - b));
}

/** A typed character as one of the grid's symbols; null where it is none. */
export const toSymbol = (character, { symbols, rules }) =>
  symbols.includes(character) ? character : (rules.aliases[character] ?? null);

/** One line of text per row of the grid. */
export function toText(cells, { grid_shape: [rows, columns] }) {
  return Array.from({ length: rows }, (_, row) =>
    cells.slice(row * columns, (row + 1) * columns).join(""),
  ).join("\n");
}
