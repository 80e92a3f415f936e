import { Tabs } from "radix-ui";
import { type ComponentType, lazy, Suspense, useEffect, useRef } from "react";
import type { Schemas } from "../../../api/client.ts";
import { Boundary } from "../../../parts/Boundary.tsx";
import { Skeleton } from "../../../parts/Skeleton.tsx";
import { words } from "../../../words/index.ts";
import style from "./Panels.module.css";
import { PANEL_TABS, type PanelTab } from "./tabs.ts";

type Build = Schemas["BuildOut"];

export interface PanelProps {
  build: Build;
  /** Whether the reader may open previews, push and so on; a viewer only looks. */
  mayChange: boolean;
}

/** What each tab shows. Loaded when it is first opened; taken out of the page when another tab is chosen. */
const PANELS: Record<PanelTab, ComponentType<PanelProps>> = {
  preview: lazy(() => import("./Preview.tsx")),
  changes: lazy(() => import("./Changes.tsx")),
  files: lazy(() => import("./Files.tsx")),
  documents: lazy(() => import("./Documents.tsx")),
  screenshots: lazy(() => import("./Screenshots.tsx")),
  details: lazy(() => import("./Details.tsx")),
};

interface Props {
  build: Build;
  tab: PanelTab;
  onTab: (tab: PanelTab) => void;
  /** Whether the row of tabs is shown; a phone has its own at the bottom. */
  bar?: boolean;
  /** Whether actions that change something are offered. */
  mayChange?: boolean;
}

/** The right part of a build's page: its preview, changes, files, documents, screenshots and details. */
export function Panels({ build, tab, onTab, bar = true, mayChange = true }: Props) {
  const Panel = PANELS[tab];
  const list = useRef<HTMLDivElement>(null);
  // A narrow row of tabs scrolls: the chosen one comes into view.
  useEffect(() => {
    const chosen = list.current?.querySelector<HTMLElement>('[data-state="active"]');
    if (list.current && chosen?.textContent === words.panels.tabs[tab]) {
      list.current.scrollLeft = chosen.offsetLeft - (list.current.clientWidth - chosen.offsetWidth) / 2;
    }
  }, [tab]);
  return (
    <Tabs.Root className={style.panels} value={tab} onValueChange={(value) => onTab(value as PanelTab)}>
      <Tabs.List ref={list} className={bar ? style.bar : "visually-hidden"} aria-label={words.panels.label}>
        {PANEL_TABS.map((name) => (
          <Tabs.Trigger key={name} value={name} className={style.tab}>
            {words.panels.tabs[name]}
          </Tabs.Trigger>
        ))}
      </Tabs.List>
      <Tabs.Content value={tab} className={style.content}>
        <h2 className="visually-hidden">{words.panels.tabs[tab]}</h2>
        <Boundary key={tab}>
          <Suspense fallback={<Skeleton />}>
            <Panel build={build} mayChange={mayChange} />
          </Suspense>
        </Boundary>
      </Tabs.Content>
    </Tabs.Root>
  );
}
