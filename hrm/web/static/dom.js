// Making and finding elements. Text is only ever set as text, never parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** An HTML element with attributes (null and false leave one out) and children or strings. */
export function html(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Likewise for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** Fill a <select>; keeps the choice where it is still there. Options are {value, text}. */
export function setOptions(select, options, chosen = select.value) {
  select.replaceChildren(...options.map(({ value, text }) => html("option", { value }, text)));
  if (options.some(({ value }) => value === chosen)) select.value = chosen;
  select.disabled = options.length === 0;
}

/** A button that cannot be used now stays focusable, so that the keyboard is not lost. */
export function setEnabled(button, enabled) {
  button.setAttribute("aria-disabled", String(!enabled));
}

const isEnabled = (button) => button.getAttribute("aria-disabled") !== "true";

/** Call `action` on a click, unless the button is switched off. */
export function onClick(button, action) {
  button.addEventListener("click", () => isEnabled(button) && action());
}

/** Draws before the next picture of the screen, once, however often it is asked to before that. */
export class OncePerFrame {
  #draw;
  #frame = null;

  constructor(draw) {
    this.#draw = draw;
  }

  ask() {
    this.#frame ??= requestAnimationFrame(() => this.now());
  }

  now() {
    cancelAnimationFrame(this.#frame);
    this.#frame = null;
    this.#draw();
  }
}

/** A message with a full stop, where it has none. */
export const sentence = (text) => (/[.!?…]$/.test(text) ? text : `${text}.`);

/** Say something in a role=status element, once; `kind` is "info", "success" or "error". */
export function say(element, text, kind = "info") {
  element.dataset.kind = kind;
  if (element.textContent !== text) element.textContent = text;
}

export const percent = (share) => `${(100 * share).toFixed(1)}%`;

export const count = (number, noun, many = `${noun}s`) =>
  `${number.toLocaleString("en")} ${number === 1 ? noun : many}`;
