// The panel "Other checkpoints": whoever else knows such puzzles answers the one that is there.

import { AnswerPlace, ask } from "./answers.js";
import { ApiError, Latest, isAbort } from "./api.js";
import { byId, count, onClick, percent, say, setEnabled } from "./dom.js";
import { isSolved, verdict } from "./rollout.js";
import { sameLook } from "./rules.js";

export class OtherModels {
  #names = []; // of those that are asked
  #question = null; // as `ask` takes it
  #look = null;
  #request = new Latest();
  #message = byId("others-message");
  #list = byId("others-list");

  constructor() {
    onClick(byId("others-ask"), () => this.#ask());
    onClick(byId("others-stop"), () => {
      this.#request.stop();
      this.#end("Stopped.");
    });
  }

  /** Another puzzle or checkpoint is chosen; known: all, of which other runs' earlier ones are not asked. */
  follow(question, chosen, known) {
    this.#request.stop();
    this.#question = question;
    this.#look = chosen;
    const run = chosen.earlier_of ?? chosen.id;
    const isAsked = (one) => one.id !== chosen.id && (one.earlier_of ?? run) === run;
    const others = known.filter((one) => isAsked(one) && sameLook(one, chosen));
    this.#names = others.map(({ id }) => id);
    byId("others").hidden = others.length === 0;
    byId("others-ask").textContent = `Ask ${count(others.length, "other checkpoint")}`;
    this.#list.replaceChildren();
    this.#end("");
  }

  /** One after the other, for the server holds few models at once. */
  async #ask() {
    const signal = this.#request.start();
    const { answer } = this.#question;
    const found = [];
    this.#setRunning(true);
    this.#list.replaceChildren();
    for (const name of this.#names) {
      const place = new AnswerPlace(name);
      this.#list.append(place.element);
      say(this.#message, `Asking ${name} …`);
      try {
        const end = await ask(name, this.#question, this.#look, signal);
        const sure = `halt probability ${percent(end.halt_probability)}`;
        place.show(end, this.#look, verdict(end, answer), `${count(end.steps, "ACT step")}, ${sure}`);
        found.push(end);
      } catch (error) {
        if (isAbort(error)) {
          place.element.remove();
          return;
        }
        if (!(error instanceof ApiError)) throw error;
        place.say(error.message, "error");
      }
    }
    const right = found.filter((end) => isSolved(end, answer)).length;
    const isJudged = answer !== null || this.#look.rules.judged;
    const told = `${found.length} of ${count(this.#names.length, "checkpoint")} answered`;
    this.#end(isJudged && found.length ? `${told}; right: ${right}.` : `${told}.`);
  }

  #end(text) {
    say(this.#message, text);
    this.#setRunning(false);
  }

  #setRunning(running) {
    const [ask, stop] = [byId("others-ask"), byId("others-stop")];
    setEnabled(ask, !running);
    setEnabled(stop, running);
    if (!running && document.activeElement === stop) ask.focus();
  }
}
