// A whole puzzle as text: the text field, and pasting anywhere but into another field. The server
// reads it, as it reads files.

import { ApiError, Latest, isAbort, postJson } from "./api.js";
import { byId } from "./dom.js";
import { toText } from "./rules.js";

export class PuzzleText {
  #look = null;
  #reading = new Latest();
  #field = byId("solve-text");
  #onPuzzle;

  /**
   * onPuzzle(cells, note): a puzzle was entered; note: how it was read where that is not plain;
   * onPasteError(text): what was pasted is none; takesPaste(target): whether the page's paste is
   * meant for the puzzle.
   */
  constructor({ onPuzzle, onPasteError, takesPaste }) {
    this.#onPuzzle = onPuzzle;
    this.#field.addEventListener("input", () =>
      this.#read(this.#field.value, (error) => this.#showError(`${error}.`)),
    );
    document.addEventListener("paste", (event) => {
      const text = event.clipboardData?.getData("text/plain") ?? "";
      const isOneCell = Array.from(text.trim()).length <= 1;
      if (this.#look === null || isOneCell || !takesPaste(event.target)) return;
      event.preventDefault();
      this.#read(text, (error) =>
        onPasteError(`The pasted text is no puzzle of this grid: ${error}.`),
      );
    });
  }

  /** look: a checkpoint as the server lists it. */
  show(cells, look) {
    this.#reading.stop(); // what was being read is no longer wanted
    this.#look = look;
    const text = toText(cells, look);
    if (this.#field.value !== text) this.#field.value = text; // the cursor stays where it can
    this.#showError("");
  }

  async #read(text, onError) {
    if (this.#look === null) return;
    const signal = this.#reading.start();
    try {
      const asked = { checkpoint: this.#look.id, text };
      const { puzzle, note, error } = await postJson("/api/read", asked, signal);
      if (error) onError(error);
      else this.#onPuzzle(Array.from(puzzle), note);
    } catch (error) {
      if (isAbort(error)) return;
      if (!(error instanceof ApiError)) throw error;
      onError(error.message.replace(/\.$/, ""));
    }
  }

  #showError(text) {
    byId("solve-text-error").textContent = text;
    this.#field.setAttribute("aria-invalid", String(text !== ""));
  }
}
