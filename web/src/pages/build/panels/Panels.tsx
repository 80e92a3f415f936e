import { type ComponentType, type KeyboardEvent, lazy, Suspense, useEffect, useId, useRef } from "react";
import type { Schemas } from "../../../api/client.ts";
import { Boundary } from "../../../parts/Boundary.tsx";
import { Skeleton } from "../../../parts/Skeleton.tsx";
import { panelTabs } from "../../../words/build.ts";
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
  /** Whether there is a row of tabs; a phone has its own at the bottom. */
  bar?: boolean;
  /** Whether actions that change something are offered. */
  mayChange?: boolean;
}

/** The right part of a build's page: its preview, changes, files, documents, screenshots and details. */
export function Panels({ build, tab, onTab, bar = true, mayChange = true }: Props) {
  const Panel = PANELS[tab];
  const id = useId();
  const list = useRef<HTMLDivElement>(null);
  // A narrow row of tabs scrolls: the chosen one comes into view.
  useEffect(() => {
    const chosen = list.current?.querySelector<HTMLElement>('[aria-selected="true"]');
    if (list.current && chosen) {
      list.current.scrollLeft = chosen.offsetLeft - (list.current.clientWidth - chosen.offsetWidth) / 2;
    }
  }, [tab]);
  const content = (
    <>
      <h2 className="visually-hidden">{panelTabs.tabs[tab]}</h2>
      <Boundary key={tab}>
        <Suspense fallback={<Skeleton />}>
          <Panel build={build} mayChange={mayChange} />
        </Suspense>
      </Boundary>
    </>
  );
  return (
    <div className={style.panels}>
      {bar && (
        <div ref={list} role="tablist" className={style.bar} aria-label={panelTabs.label} onKeyDown={chooseByKey}>
          {PANEL_TABS.map((name) => (
            <button
              key={name}
              type="button"
              role="tab"
              id={`${id}${name}`}
              aria-selected={name === tab}
              aria-controls={name === tab ? `${id}panel` : undefined}
              tabIndex={name === tab ? 0 : -1}
              className={style.tab}
              onClick={() => onTab(name)}
            >
              {panelTabs.tabs[name]}
            </button>
          ))}
        </div>
      )}
      {bar ? (
        <div
          role="tabpanel"
          id={`${id}panel`}
          aria-labelledby={`${id}${tab}`}
          // biome-ignore lint/a11y/noNoninteractiveTabindex: a panel may have nothing else to focus, and it scrolls.
          tabIndex={0}
          data-panel
          className={style.content}
        >
          {content}
        </div>
      ) : (
        <section
          aria-label={panelTabs.tabs[tab]}
          // biome-ignore lint/a11y/noNoninteractiveTabindex: a panel may have nothing else to focus, and it scrolls.
          tabIndex={0}
          data-panel
          className={style.content}
        >
          {content}
        </section>
      )}
    </div>
  );
}

/** Choose another tab with the arrows, Home and End. A click does the rest. */
function chooseByKey(event: KeyboardEvent<HTMLElement>) {
  const tabs = [...event.currentTarget.querySelectorAll<HTMLElement>('[role="tab"]')];
  const now = tabs.indexOf(document.activeElement as HTMLElement);
  const next = { ArrowRight: now + 1, ArrowLeft: now - 1, Home: 0, End: -1 }[event.key];
  if (now < 0 || next === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  const chosen = tabs.at(next % tabs.length);
  chosen?.focus();
  chosen?.click();
}
