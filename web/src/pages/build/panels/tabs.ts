/** The tabs of the right part of a build's page, in their order; `1`…`6` on the keyboard. */
export const PANEL_TABS = ["preview", "changes", "files", "documents", "screenshots", "details"] as const;

export type PanelTab = (typeof PANEL_TABS)[number];

/** The tab that the page's address names, if it names one. */
export function panelTab(name: string | null | undefined): PanelTab | undefined {
  return PANEL_TABS.find((tab) => tab === name);
}
