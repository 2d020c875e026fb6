// A whole puzzle as text: the text field, and pasting anywhere but into another field.

import { byId } from "./dom.js";
import { parsePuzzle, toText } from "./rules.js";

export class PuzzleText {
  #look = null;
  #field = byId("solve-text");
  #onPuzzle;

  /**
   * onPuzzle(cells): a puzzle was entered; onPasteError(text): what was pasted is none;
   * takesPaste(target): whether the page's paste is meant for the puzzle.
   */
  constructor({ onPuzzle, onPasteError, takesPaste }) {
    this.#onPuzzle = onPuzzle;
    this.#field.addEventListener("input", () => this.#read());
    document.addEventListener("paste", (event) => {
      const text = event.clipboardData?.getData("text/plain") ?? "";
      const isOneCell = Array.from(text.trim()).length <= 1;
      if (this.#look === null || isOneCell || !takesPaste(event.target)) return;
      event.preventDefault();
      const { cells, error } = parsePuzzle(text, this.#look);
      if (error) onPasteError(`The pasted text is no puzzle of this grid: ${error}.`);
      else onPuzzle(cells);
    });
  }

  show(cells, look) {
    this.#look = look;
    const text = toText(cells, look);
    if (this.#field.value !== text) this.#field.value = text; // the cursor stays where it can
    this.#showError("");
  }

  #read() {
    if (this.#look === null) return;
    const { cells, error } = parsePuzzle(this.#field.value, this.#look);
    if (error) this.#showError(`${error}.`);
    else this.#onPuzzle(cells);
  }

  #showError(text) {
    byId("solve-text-error").textContent = text;
    this.#field.setAttribute("aria-invalid", String(text !== ""));
  }
}
