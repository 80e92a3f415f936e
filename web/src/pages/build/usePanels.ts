import { useState } from "react";
import { useLocation, useSearch } from "wouter";
import { browserStorage } from "../../parts/storage.ts";
import { type PanelTab, panelTab } from "./panels/tabs.ts";
import type { Width } from "./useWidth.ts";

const PERCENT_KEY = "cofounder-panels-percent";
const PANELS_KEY = "cofounder-panels";
const USUAL_PERCENT = 40;

/** Which tab of the right part is shown, whether that part is shown at all, and how wide it is. */
export function usePanels(width: Width) {
  const search = useSearch();
  const [, navigate] = useLocation();
  const parameters = new URLSearchParams(search);
  const tab = panelTab(parameters.get("tab"));
  const [isOpen, setOpen] = useState(() => browserStorage.getItem(PANELS_KEY) !== "closed");
  const [isDrawerOpen, setDrawerOpen] = useState(false);
  const [percent, setPercent] = useState(() => Number(browserStorage.getItem(PERCENT_KEY)) || USUAL_PERCENT);

  function setPanels(open: boolean) {
    if (width === "tablet") {
      setDrawerOpen(open);
      return;
    }
    browserStorage.setItem(PANELS_KEY, open ? "open" : "closed");
    setOpen(open);
  }

  return {
    tab,
    setTab: (next: PanelTab | undefined, file?: string) => {
      const address = new URLSearchParams(location.search);
      if (next === undefined) address.delete("tab");
      else address.set("tab", next);
      if (file === undefined) address.delete("file");
      else address.set("file", file);
      const query = address.toString();
      navigate(`${location.pathname}${query === "" ? "" : `?${query}`}`, { replace: true });
      if (next !== undefined && width !== "phone") setPanels(true);
    },
    panels: width === "tablet" ? isDrawerOpen : isOpen,
    setPanels,
    percent,
    setPercent: (next: number) => {
      browserStorage.setItem(PERCENT_KEY, String(next));
      setPercent(next);
    },
  };
}
