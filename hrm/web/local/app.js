// The frame of a page without a server: the view Solve alone, and what a link asks of it.

import { byId } from "./dom.js";
import { sharedIn, viewOf } from "./link.js";
import { SolveView } from "./solve.js";
import "./theme_button.js";

byId("inside").hidden = true; // the exported step gives no look inside
const solve = new SolveView();

function follow() {
  const shared = sharedIn(location.hash);
  if (shared) solve.openShared(shared);
  if (viewOf(location.hash) !== "solve") history.replaceState(null, "", "#solve");
  solve.setVisible(true);
}

window.addEventListener("hashchange", follow);
follow();
