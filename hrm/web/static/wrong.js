// Finds the examples that a checkpoint answers wrongly, chunk by chunk, and goes through them.

import { Latest, isAbort, postJson, sleep } from "./api.js";
import { byId, count, onClick, say, setEnabled, setOptions } from "./dom.js";

const MOST = 32; // examples of a request

export class WrongScan {
  #place;
  #onFirst;
  #onChange;
  #chunk = MOST;
  #wrong = []; // indices, ascending
  #request = new Latest();
  #box = byId("wrong-only");
  #select = byId("wrong-checkpoint");
  #message = byId("wrong-message");

  /**
   * place(): {data, split} to look through; onFirst(index): the first wrong example was found;
   * onChange(): others were found, or the scan was switched on or off.
   */
  constructor({ place, onFirst, onChange }) {
    this.#place = place;
    this.#onFirst = onFirst;
    this.#onChange = onChange;
    this.#box.addEventListener("change", () => (this.isOn ? this.#scan() : this.reset()));
    this.#select.addEventListener("change", () => {
      this.#chunk = MOST;
      this.reset();
    });
    onClick(byId("wrong-stop"), () => this.#stop());
  }

  get isOn() {
    return this.#box.checked;
  }

  get checkpoint() {
    return this.#select.value;
  }

  setCheckpoints(ids, chosen) {
    setOptions(
      this.#select,
      ids.map((id) => ({ value: id, text: id })),
      chosen,
    );
    this.#box.disabled = ids.length === 0;
  }

  /** The next (direction 1) or previous (-1) wrong example, or null. */
  neighbour(index, direction) {
    const found =
      direction > 0
        ? this.#wrong.find((one) => one > index)
        : this.#wrong.findLast((one) => one < index);
    return found ?? null;
  }

  /** Switch off, and forget what was found. */
  reset() {
    this.#request.stop();
    this.#box.checked = false;
    this.#wrong = [];
    byId("wrong-body").hidden = true;
    setEnabled(byId("wrong-stop"), false);
    say(this.#message, "");
    this.#onChange();
  }

  #stop() {
    this.#request.stop();
    setEnabled(byId("wrong-stop"), false);
    say(this.#message, `Stopped; ${count(this.#wrong.length, "wrong answer")} so far.`);
  }

  async #scan() {
    const signal = this.#request.start();
    const place = {
      ...this.#place(),
      checkpoint: this.checkpoint,
      steps: null,
      halting: "max_steps",
    };
    this.#wrong = [];
    this.#showProgress(0, 1);
    byId("wrong-body").hidden = false;
    setEnabled(byId("wrong-stop"), true);
    say(this.#message, "Looking for wrong answers …");
    this.#onChange();
    try {
      let [start, examples] = [0, 1];
      while (start < examples) {
        const part = await this.#check({ ...place, start }, signal);
        examples = part.examples;
        start += part.checked;
        if (part.checked === 0) break;
        this.#add(part.wrong);
        this.#showProgress(start, examples);
      }
      const found = this.#wrong.length
        ? count(this.#wrong.length, "wrong answer")
        : "No wrong answer";
      say(this.#message, `${found} in ${count(start, "example")}.`);
    } catch (error) {
      if (isAbort(error)) return;
      say(this.#message, error.message, "error");
    }
    setEnabled(byId("wrong-stop"), false);
  }

  /** One chunk; a server that is busy is asked again when it says, one that is slow for fewer. */
  async #check(place, signal) {
    for (;;) {
      try {
        return await postJson("/api/check", { ...place, count: this.#chunk }, signal);
      } catch (error) {
        if (error.tookTooLong && this.#chunk > 1) {
          this.#chunk = Math.floor(this.#chunk / 2);
        } else if (error.retryAfter != null) {
          await sleep(error.retryAfter, signal);
        } else {
          throw error;
        }
      }
    }
  }

  #add(indices) {
    const isFirst = this.#wrong.length === 0 && indices.length > 0;
    this.#wrong.push(...indices);
    if (isFirst) this.#onFirst(indices[0]);
    this.#onChange();
  }

  #showProgress(checked, examples) {
    const bar = byId("wrong-progress");
    bar.max = examples;
    bar.value = checked;
    const share = checked ? ` (${((100 * this.#wrong.length) / checked).toFixed(1)}%)` : "";
    byId("wrong-count").textContent =
      `${this.#wrong.length.toLocaleString("en")} wrong of ${checked.toLocaleString("en")} checked${share}`;
  }
}
