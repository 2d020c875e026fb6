// The page's frame: tabs (ARIA pattern, deep links by hash), and the three views.

import { byId } from "./dom.js";
import { DataView } from "./data.js";
import { sharedIn, viewOf } from "./link.js";
import { SolveView } from "./solve.js";
import "./theme_button.js";
import { TrainingView } from "./training.js";

const tabs = [...document.querySelectorAll("[role=tab]")];
const panelOf = (tab) => byId(tab.getAttribute("aria-controls"));
const nameOf = (tab) => tab.id.slice("tab-".length);

const solve = new SolveView();
const views = {
  solve,
  data: new DataView((opened) => {
    show("solve");
    solve.open(opened);
  }),
  training: new TrainingView(),
};

let current = "solve";

/** Switch to a view: "solve", "data" or "training". */
function show(name) {
  current = name;
  for (const tab of tabs) {
    const chosen = nameOf(tab) === name;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    panelOf(tab).hidden = !chosen;
  }
  if (viewOf(location.hash) !== name) history.replaceState(null, "", `#${name}`);
  for (const [other, view] of Object.entries(views)) view.setVisible(other === name);
}

/** Show what the address names: a view, and in Solve what a link asks for; else the same view. */
function follow() {
  const named = viewOf(location.hash);
  const shared = named === "solve" ? sharedIn(location.hash) : null;
  if (shared) solve.openShared(shared);
  show(Object.hasOwn(views, named) ? named : current);
}

tabs.forEach((tab, index) => {
  tab.addEventListener("click", () => show(nameOf(tab)));
  tab.addEventListener("keydown", (event) => {
    const last = tabs.length - 1;
    const target = {
      ArrowRight: index === last ? 0 : index + 1,
      ArrowLeft: index ? index - 1 : last,
      Home: 0,
      End: last,
    }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    tabs[target].focus();
    show(nameOf(tabs[target]));
  });
});
window.addEventListener("hashchange", follow);

follow();
