// A puzzle and its thinking as a part of the address, behind the view's name: #solve?model=…

import { ONCE } from "./asking.js";

const NAMES = [
  ...["model", "puzzle", "data", "split", "index"],
  ...["halting", "steps", "votes", "restarts", "rollouts", "noise", "guesses", "select", "attempt", "step"],
];
const NOTHING = { ...ONCE, noise: 0, attempt: 1 };
const SECONDS = 0.3; // until the address changes: browsers refuse too many changes of it
const WHOLE = ["index", "attempt", "step"]; // numbers that no field checks

/** The view that an address names; null where it names none. */
export const viewOf = (hash) => hash.slice(1).split("?")[0] || null;

/** The page's address, which says what is shown. */
export class Address {
  #view;
  #hash = null; // to be written; null: it has been
  #before = null; // what was there when that was said
  #timer = null;

  constructor(view) {
    this.#view = view;
  }

  /** Say that this is shown: values by name, of which those that say nothing are left out. */
  show(shown) {
    const said = NAMES.filter((name) => shown[name] !== undefined && shown[name] !== NOTHING[name]);
    const query = new URLSearchParams(said.map((name) => [name, shown[name]]));
    this.#hash = `#${this.#view}?${query}`;
    this.#before = location.hash;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#write(), 1000 * SECONDS);
  }

  /** Copy it; returns what is to be said of that. */
  async copy() {
    this.#write();
    const copied = await navigator.clipboard?.writeText(location.href).then(
      () => true,
      () => false,
    );
    const place = copied ? "Link copied" : "Copy the address of this page";
    return `${place}: it shows this puzzle, its answer and this step.`;
  }

  #write() {
    const isSame = location.hash === this.#before; // else something else has been opened
    if (this.#hash !== null && isSame) history.replaceState(null, "", this.#hash);
    this.#hash = null;
  }
}

/** What an address asks to be shown, text by name; null where it asks for nothing. */
export function sharedIn(hash) {
  const at = hash.indexOf("?");
  if (at < 0) return null;
  const query = new URLSearchParams(hash.slice(at + 1));
  const shared = Object.fromEntries(NAMES.map((name) => [name, query.get(name)]));
  return shared.model === null && shared.puzzle === null ? null : shared;
}

/** What is wrong with it whatever the models are, in one line; or null. */
export function faultOf(shared) {
  const missing = ["model", "puzzle"].find((name) => !shared[name]);
  if (missing) return `This link names no ${missing}; copy it once more.`;
  const odd = WHOLE.find((name) => shared[name] !== null && !/^\d{1,9}$/.test(shared[name]));
  return odd ? `${odd}=${shared[odd]} in this link is no whole number.` : null;
}
