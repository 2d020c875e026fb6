// What a grid's look says: symbols, Sudoku units, reading a puzzle from text.
//
// A look is what the server tells about a checkpoint or a data set: grid_shape, box_shape, symbols.

/** The symbol of an empty cell, or null where a grid has none. */
export const blankOf = (look) => [".", " "].find((blank) => look.symbols.includes(blank)) ?? null;

export function isSudoku({ grid_shape: [rows, columns], box_shape: box, symbols }) {
  return box !== null && rows === columns && rows === box[0] * box[1] && symbols.includes(".");
}

export const sameLook = (a, b) =>
  ["grid_shape", "box_shape", "symbols"].every(
    (k) => JSON.stringify(a[k]) === JSON.stringify(b[k]),
  );

export const cellCount = ({ grid_shape: [rows, columns] }) => rows * columns;

export const isBlank = (symbol) => symbol === "." || symbol === " " || symbol === "_";

/** Cells that hold a symbol which a given must not change: everything but blanks. */
export const givens = (puzzle) => puzzle.map((symbol) => !isBlank(symbol));

/** Cells of a Sudoku, in order, whose symbol stands twice in their row, column or box: a Set. */
export function conflicts(cells, look) {
  const found = new Set();
  if (!isSudoku(look)) return found;
  const side = look.grid_shape[0];
  const [boxRows, boxColumns] = look.box_shape;
  const seen = new Map();
  cells.forEach((symbol, cell) => {
    if (isBlank(symbol)) return;
    const row = Math.floor(cell / side);
    const column = cell % side;
    const box = Math.floor(row / boxRows) * boxRows + Math.floor(column / boxColumns);
    for (const unit of [`r${row}`, `c${column}`, `b${box}`]) {
      const key = `${unit} ${symbol}`;
      if (seen.has(key)) found.add(cell).add(seen.get(key));
      else seen.set(key, cell);
    }
  });
  return new Set([...found].sort((a, b) => a - b));
}

/**
 * A typed or pasted character as one of the grid's symbols; null where it is none.
 */
export function toSymbol(character, look) {
  const blank = blankOf(look);
  if (blank === "." && "0_. ".includes(character)) return blank;
  return [character, character.toUpperCase()].find((c) => look.symbols.includes(c)) ?? null;
}

/**
 * A whole puzzle from text: {cells} or {error, column}. Line breaks, and in a Sudoku spaces and
 * the lines that people draw between boxes, do not count.
 */
export function parsePuzzle(text, look) {
  const ignored = isSudoku(look) ? /[\s|+│─┼┌┐└┘├┤┬┴-]/gu : /[\r\n]/g;
  const characters = Array.from(text.replace(ignored, ""));
  const [rows, columns] = look.grid_shape;
  const cells = characters.map((character) => toSymbol(character, look));
  const column = cells.indexOf(null);
  if (column >= 0) {
    const known = JSON.stringify(look.symbols).slice(1, -1);
    return { error: `“${characters[column]}” is not one of the symbols ${known}.`, column };
  }
  if (cells.length !== rows * columns) {
    const size = `${rows * columns} (${rows} × ${columns})`;
    return { error: `${cells.length} characters, but this grid has ${size}.`, column: null };
  }
  return { cells };
}

/** One line of text per row of the grid. */
export function toText(cells, { grid_shape: [rows, columns] }) {
  return Array.from({ length: rows }, (_, row) =>
    cells.slice(row * columns, (row + 1) * columns).join(""),
  ).join("\n");
}
