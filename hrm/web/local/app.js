// The frame of a page without a server: the view Solve alone.

import { byId } from "./dom.js";
import { SolveView } from "./solve.js";
import "./theme_button.js";

byId("inside").hidden = true; // the exported step gives no look inside
new SolveView().setVisible(true);
