// A puzzle's grid: where cells are compared a table of them (editable or not), else a picture.
//
// Cells to show: {symbol, given, answered, confidence, changed, wrong, invalid}; only symbol is
// required. A confidence makes a cell an answered one.

import { html } from "./dom.js";
import { hasUnits, isEmpty, toSymbol } from "./rules.js";

const WITH_SYMBOL = new Set(["given", "token", "color", "end"]);
const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

export class Grid {
  #host;
  #label;
  #onEdit;
  #look = null;
  #shown = [];
  #cells = []; // elements, one per cell
  #inputs = []; // only of an editable grid
  #current = 0; // the cell that Tab reaches

  /** `onEdit(cell, symbol)` makes a table editable; `label` names the grid. */
  constructor(host, label, onEdit = null) {
    this.#host = host;
    this.#label = label;
    this.#onEdit = onEdit;
  }

  get isEditable() {
    return this.#inputs.length > 0;
  }

  /** Build the grid anew for another look; the cells are empty until `show`. */
  setLook(look) {
    this.#look = look;
    this.#shown = [];
    this.#cells = [];
    this.#inputs = [];
    this.#current = 0;
    const [rows, columns] = look.grid_shape;
    const body = hasUnits(look) ? this.#table(rows, columns) : this.#picture(rows, columns);
    this.#host.replaceChildren(body);
    this.#host.style.setProperty("--columns", columns);
  }

  show(cells) {
    cells.forEach((cell, index) => this.#showCell(cell, index));
    if (!hasUnits(this.#look)) {
      const [rows, columns] = this.#look.grid_shape;
      const answered = cells.filter((cell) => this.#pictureKind(cell) === "answered").length;
      const wrong = cells.filter((cell) => cell.wrong).length;
      const path = answered ? `, ${answered} cells filled in` : "";
      const faults = wrong ? `, ${wrong} wrong` : "";
      this.#host.firstChild.setAttribute(
        "aria-label",
        `${this.#label}, ${rows} by ${columns}${path}${faults}`,
      );
    }
  }

  focusCell(index) {
    if (this.isEditable) this.#moveTo(index);
    else this.#host.querySelector("[tabindex]")?.focus();
  }

  contains = (node) => this.#host.contains(node);

  #table(rows, columns) {
    const [boxRows, boxColumns] = this.#look.box_shape ?? [rows, columns];
    const table = html("table", { class: "cells", "aria-label": this.#label });
    if (this.#onEdit) table.setAttribute("role", "grid");
    for (let row = 0; row < rows; row++) {
      const line = table.insertRow();
      for (let column = 0; column < columns; column++) {
        const cell = line.insertCell();
        if (column && column % boxColumns === 0) cell.classList.add("box-left");
        if (row && row % boxRows === 0) cell.classList.add("box-top");
        cell.append(this.#onEdit ? this.#input(row, column) : html("span", { class: "symbol" }));
        cell.append(html("span", { class: "bar", "aria-hidden": "true" }));
        this.#cells.push(cell);
      }
    }
    if (this.#onEdit) table.addEventListener("keydown", (event) => this.#onKey(event));
    return html("div", { class: "frame" }, table);
  }

  #input(row, column) {
    const index = this.#inputs.length;
    const input = html("input", {
      type: "text",
      inputmode: this.#isNumeric() ? "numeric" : "text",
      autocomplete: "off",
      autocapitalize: "characters",
      spellcheck: "false",
      tabindex: index === 0 ? "0" : "-1",
      name: `r${row + 1}c${column + 1}`,
    });
    input.addEventListener("focus", () => {
      this.#setCurrent(index);
      input.select();
    });
    input.addEventListener("input", () => this.#onInput(index));
    this.#inputs.push(input);
    return input;
  }

  #isNumeric() {
    const symbols = Array.from(this.#look.symbols);
    return symbols.every((one) => isEmpty(one, this.#look) || Number.isInteger(Number(one)));
  }

  /**
   * What a tile looks like: wall, floor, given or answered; a colour or the end of a grid of
   * colours; a token where nothing is known.
   */
  #pictureKind({ symbol, given }) {
    const { blank, wall, colors, ends } = this.#look.rules;
    if (symbol in colors) return "color";
    if (ends.includes(symbol)) return "end";
    if (ends && isEmpty(symbol, this.#look)) return "floor";
    if (symbol === wall) return "wall";
    if (blank === null) return "token";
    if (isEmpty(symbol, this.#look)) return "floor";
    return given ? "given" : "answered";
  }

  #picture(rows, columns) {
    const cells = Array.from({ length: rows * columns }, () => html("span", { class: "tile" }));
    this.#cells = cells;
    const tabindex = this.#onEdit ? "0" : null;
    return html("div", { class: "picture", role: "img", tabindex }, ...cells);
  }

  #showCell(cell, index) {
    const before = this.#shown[index];
    const same = before && Object.keys({ ...before, ...cell }).every((k) => before[k] === cell[k]);
    const input = this.#inputs[index];
    const text = isEmpty(cell.symbol, this.#look) ? "" : cell.symbol;
    if (same && (!input || input.value === text)) return;
    this.#shown[index] = { ...cell };

    const element = this.#cells[index];
    const states = ["given", "changed", "wrong", "invalid"];
    for (const state of states) element.classList.toggle(state, Boolean(cell[state]));
    const sure = cell.confidence ?? null;
    element.classList.toggle("answered", !cell.given && (sure !== null || Boolean(cell.answered)));
    element.style.setProperty("--confidence", sure ?? (hasUnits(this.#look) ? 0 : 1));
    element.title = sure === null || cell.given ? "" : `${(100 * sure).toFixed(1)}% sure`;

    if (!hasUnits(this.#look)) {
      const kind = this.#pictureKind(cell);
      element.dataset.kind = kind;
      element.textContent = WITH_SYMBOL.has(kind) ? cell.symbol : "";
      const [fill, ink] = this.#look.rules.colors[cell.symbol] ?? ["", ""];
      element.style.setProperty("--fill", fill);
      element.style.setProperty("--ink", ink);
    } else if (input) {
      input.value = text;
      input.setAttribute("aria-label", this.#describe(cell, index));
      input.setAttribute("aria-invalid", String(Boolean(cell.invalid)));
      if (document.activeElement === input) input.select();
    } else {
      element.firstChild.textContent = text;
      if (cell.wrong) element.setAttribute("aria-label", `${text || "empty"}, wrong`);
      else element.removeAttribute("aria-label");
    }
  }

  #describe(cell, index) {
    const columns = this.#look.grid_shape[1];
    const parts = [`Row ${Math.floor(index / columns) + 1}, column ${(index % columns) + 1}`];
    if (cell.given) parts.push("given");
    else if (cell.confidence != null) parts.push(`${(100 * cell.confidence).toFixed(0)}% sure`);
    if (cell.changed) parts.push("changed in this step");
    if (cell.wrong) parts.push("wrong");
    if (cell.invalid) parts.push("contradicts another cell");
    return parts.join(", ");
  }

  #onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [rows, columns] = this.#look.grid_shape;
    const index = this.#current;
    const row = Math.floor(index / columns);
    const column = index % columns;
    let target = null;
    if (event.key in ARROWS) {
      const [down, right] = ARROWS[event.key];
      const to = [row + down, column + right];
      target =
        to[0] >= 0 && to[0] < rows && to[1] >= 0 && to[1] < columns
          ? to[0] * columns + to[1]
          : index;
    } else if (event.key === "Home") target = row * columns;
    else if (event.key === "End") target = row * columns + columns - 1;
    else if (event.key === "Backspace" || event.key === "Delete") this.#erase(index);
    else return;
    event.preventDefault();
    if (target !== null) this.#moveTo(target);
  }

  #onInput(index) {
    // Also reached by keyboards of phones, which report no keys: the newest character counts.
    const input = this.#inputs[index];
    const { blank } = this.#look.rules;
    const old = this.#shown[index]?.symbol ?? blank;
    const typed = Array.from(input.value);
    const fresh = typed.length > 1 && typed[0] !== old ? typed[0] : typed.at(-1);
    const isErased = fresh === undefined || fresh.trim() === "";
    const symbol = isErased ? blank : toSymbol(fresh, this.#look);
    input.value = isEmpty(old, this.#look) ? "" : old;
    if (symbol !== null) this.#onEdit(index, symbol);
  }

  #erase(index) {
    if (this.#look.rules.blank !== null) this.#onEdit(index, this.#look.rules.blank);
  }

  #moveTo(index) {
    this.#setCurrent(index);
    this.#inputs[index].focus();
  }

  #setCurrent(index) {
    this.#inputs[this.#current].tabIndex = -1;
    this.#current = index;
    this.#inputs[index].tabIndex = 0;
  }
}
