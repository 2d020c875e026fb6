// The button that switches between light and dark; theme.js has set what was chosen before.

import { byId } from "./dom.js";

const themeButton = byId("theme");
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () =>
  (document.documentElement.dataset.theme ?? (prefersDark.matches ? "dark" : "light")) === "dark";
const showTheme = () => themeButton.setAttribute("aria-pressed", String(isDark()));

themeButton.addEventListener("click", () => {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("theme", theme);
  } catch {
    // Storage may be forbidden; the choice then holds until the page is left.
  }
  showTheme();
});
prefersDark.addEventListener("change", showTheme);

showTheme();
