import { Icon } from "../../parts/Icon.tsx";
import { layout } from "../../words/build.ts";
import { words } from "../../words/index.ts";
import style from "./Build.module.css";
import type { PanelTab } from "./panels/tabs.ts";

/** Whether the bar has a button for the tab; the others are behind "More". */
export const isInPhoneBar = (tab: PanelTab) => tab === "preview" || tab === "changes";

/** What a phone shows one at a time. */
export function PhoneBar({
  tab,
  setTab,
  needsAnswer,
}: {
  tab: PanelTab | undefined;
  setTab: (tab: PanelTab | undefined) => void;
  needsAnswer: boolean;
}) {
  const parts = [
    { name: layout.feed, icon: "message", tab: undefined, current: tab === undefined },
    { name: layout.preview, icon: "play", tab: "preview", current: tab === "preview" },
    { name: layout.changes, icon: "commit", tab: "changes", current: tab === "changes" },
    { name: layout.more, icon: "more", tab: "files", current: tab !== undefined && !isInPhoneBar(tab) },
  ] as const;
  return (
    <nav className={style.phoneBar} aria-label={layout.parts}>
      {parts.map((part) => (
        <button
          key={part.name}
          type="button"
          className={style.phoneTab}
          aria-current={part.current ? "page" : undefined}
          onClick={() => setTab(part.tab)}
        >
          <Icon name={part.icon} size={20} />
          <span>{part.name}</span>
          {part.tab === undefined && needsAnswer && tab !== undefined && (
            <span className={style.needsDot}>
              <Icon name="question" size={14} label={words.status.needs.founder} />
            </span>
          )}
        </button>
      ))}
    </nav>
  );
}
