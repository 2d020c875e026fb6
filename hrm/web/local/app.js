// The frame of a page without a server: the view Solve alone.

import { SolveView } from "./solve.js";
import "./theme_button.js";

new SolveView().setVisible(true);
