import { browserStorage } from "./parts/storage.ts";

export type Theme = "auto" | "light" | "dark";

const KEY = "cofounder-theme";

/** The theme that this browser has chosen. */
export function chosenTheme(): Theme {
  const value = browserStorage.getItem(KEY);
  return value === "light" || value === "dark" ? value : "auto";
}

/** Keep the theme for this browser, and show it. */
export function chooseTheme(theme: Theme): void {
  browserStorage.setItem(KEY, theme);
  applyTheme();
}

/** Show the chosen theme. */
export function applyTheme(): void {
  document.documentElement.dataset.theme = chosenTheme();
}
