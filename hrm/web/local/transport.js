// Who answers where there is no server: this page itself, as the server would.

import { think } from "./model.js";
import { conflicts, toSymbol } from "./rules.js";

const known = fetch(new URL("../model/page.json", import.meta.url)).then((found) => found.json());

const ANSWERS = {
  "/api/checkpoints": async () => {
    const { checkpoint } = await known;
    return json({ checkpoints: [checkpoint], default: checkpoint.id });
  },
  "/api/datasets": async () => json({ datasets: (await known).datasets }),
  "/api/example": async ({ index }) => json((await known).examples[index]),
  "/api/read": async ({ text }) => json(read(text, (await known).checkpoint)),
  "/api/think": async (asked, signal) => {
    const page = await known;
    const found = read(asked.puzzle, page.checkpoint);
    if (found.error) return json(found, 422);
    const [cell] = conflicts(Array.from(found.puzzle), page.checkpoint);
    if (cell !== undefined) return json({ error: "the puzzle contradicts itself" }, 422);
    return new Response(stream(think(page, asked), signal));
  },
};

/** As `fetch`, for the addresses that the view Solve asks. */
export async function send(path, { body, signal } = {}) {
  const { pathname, searchParams } = new URL(path, location.href);
  try {
    const asked = body ? JSON.parse(body) : Object.fromEntries(searchParams);
    return await ANSWERS[pathname](asked, signal);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return json({ error: `This page could not be read completely. Reload it. (${error})` }, 500);
  }
}

const json = (body, status = 200) => Response.json(body, { status });

/** A puzzle's text as the server reads it, without the frames that may be drawn around cells. */
function read(text, look) {
  const cells = [];
  const isCell = (one) => one.trim() || look.symbols.includes(one); // in a maze a space is one
  for (const character of Array.from(text).filter(isCell)) {
    const symbol = toSymbol(character, look);
    if (symbol === null)
      return { error: `character '${character}' is not one of '${look.symbols}'`, column: null };
    cells.push(symbol);
  }
  const [rows, columns] = look.grid_shape;
  const size = rows * columns;
  return cells.length === size
    ? { puzzle: cells.join(""), note: null }
    : { error: `${cells.length} characters, expected ${size} (${rows}x${columns})`, column: null };
}

/** Records as lines; between two of them the page is drawn, and may say stop. */
function stream(records, signal) {
  const encoder = new TextEncoder();
  return new ReadableStream({
    async pull(controller) {
      try {
        await new Promise((resolve) => setTimeout(resolve));
        signal?.throwIfAborted();
        const { done, value } = await records.next();
        if (done) controller.close();
        else controller.enqueue(encoder.encode(`${JSON.stringify(value)}\n`));
      } catch (error) {
        if (signal?.aborted) controller.error(error);
        else {
          const told = { error: `The model could not be run in this browser. (${error})` };
          controller.enqueue(encoder.encode(`${JSON.stringify(told)}\n`));
          controller.close();
        }
      }
    },
  });
}
