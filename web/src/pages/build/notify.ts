import { useEffect, useSyncExternalStore } from "react";
import { printable } from "../../parts/printable.ts";
import { statusWord } from "../../parts/Status.tsx";
import { browserStorage } from "../../parts/storage.ts";
import { paths } from "../../paths.ts";
import { build as buildWords, notices } from "../../words/build.ts";
import { changeOf, type NoticeKind } from "./changes.ts";
import type { Build } from "./data.ts";

const WANTED = "cofounder-notify";
const TOLD = "cofounder-told";
/** Builds of which the last change is remembered. */
const REMEMBERED = 200;
/** A tab that someone looks at says first that the change was seen. */
const LATER_MS = 600;
/** The status comes before the question that names the change. One without a question is told after this long. */
const WITHOUT_QUESTION_MS = 15_000;

const listeners = new Set<() => void>();
let trouble: string | null = null;

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function changed(): void {
  for (const listener of listeners) listener();
}

function isOn(): boolean {
  return "Notification" in window && Notification.permission === "granted" && browserStorage.getItem(WANTED) === "on";
}

/** Whether this browser tells of changes, what to say about the last attempt to change that, and what changes it. */
export function useNotifying() {
  const on = useSyncExternalStore(subscribe, isOn);
  const said = useSyncExternalStore(subscribe, () => trouble);
  return {
    on,
    said,
    toggle: () => void toggle(),
    forget: () => {
      trouble = null;
      changed();
    },
  };
}

async function toggle(): Promise<void> {
  if (isOn()) {
    browserStorage.setItem(WANTED, "off");
    trouble = buildWords.done.notifyOff;
  } else {
    const allowed = "Notification" in window && (await Notification.requestPermission()) === "granted";
    if (allowed) browserStorage.setItem(WANTED, "on");
    trouble = allowed ? buildWords.done.notifyOn : buildWords.done.notifyRefused;
  }
  changed();
}

function toldOf(): Record<string, string> {
  try {
    const value: unknown = JSON.parse(browserStorage.getItem(TOLD) ?? "{}");
    return typeof value === "object" && value !== null ? (value as Record<string, string>) : {};
  } catch {
    return {};
  }
}

/** Note that this browser knows of the change. Returns whether it is news. Only one tab at a time does this. */
async function isNews(build: string, key: string): Promise<boolean> {
  const note = () => {
    const told = toldOf();
    if (told[build] === key) return false;
    const others = Object.entries(told).filter(([id]) => id !== build);
    browserStorage.setItem(TOLD, JSON.stringify(Object.fromEntries([...others, [build, key]].slice(-REMEMBERED))));
    return true;
  };
  return "locks" in navigator ? navigator.locks.request(TOLD, note) : note();
}

/** The colour of the dot in the tab's picture, by change. */
const DOTS: Record<NoticeKind, string> = {
  needs_input: "#d97706",
  needs_other: "#d97706",
  sleeping: "#7c3aed",
  ready: "#16a34a",
  failed: "#dc2626",
};

/** Tell of the build's changes: in the tab's title and picture, and if it is hidden and wanted, by a notification. */
export function useNotices(build: Build | undefined): void {
  const change = build === undefined ? null : changeOf(build);
  const key = change?.key;
  const kind = change?.kind;
  const id = build?.id;
  const project = build === undefined ? "" : printable(build.project_name);
  const reason = build?.question?.problem ?? build?.reason ?? "";
  const lacksQuestion = kind === "needs_input" && build?.question == null;

  useEffect(() => {
    if (key === undefined || kind === undefined || id === undefined) return;
    const timer = setTimeout(
      async () => {
        if (!(await isNews(id, key)) || !document.hidden || !isOn()) return;
        const notice = new Notification(notices[kind](project), {
          body: printable(reason).slice(0, 200),
          tag: `${id} ${key}`,
        });
        notice.onclick = () => {
          window.focus();
          if (!location.pathname.startsWith(paths.build(id))) location.assign(paths.build(id));
          notice.close();
        };
      },
      lacksQuestion ? WITHOUT_QUESTION_MS : document.hidden ? LATER_MS : 0,
    );
    return () => clearTimeout(timer);
  }, [id, key, kind, lacksQuestion, project, reason]);

  useDot(kind);
}

/** A dot in the tab's picture, from when the change comes while the tab is hidden until someone looks. */
function useDot(kind: NoticeKind | undefined): void {
  useEffect(() => {
    const link = document.querySelector<HTMLLinkElement>('link[rel="icon"]');
    if (kind === undefined || link === null || !document.hidden) return;
    const usual = link.href;
    const picture = URL.createObjectURL(new Blob([iconWith(DOTS[kind])], { type: "image/svg+xml" }));
    link.href = picture;
    const restore = () => {
      if (document.hidden) return;
      link.href = usual;
    };
    document.addEventListener("visibilitychange", restore);
    return () => {
      document.removeEventListener("visibilitychange", restore);
      link.href = usual;
      URL.revokeObjectURL(picture);
    };
  }, [kind]);
}

function iconWith(dot: string): string {
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#17663f"/><path d="M21 12a6 6 0 1 0 0 8" fill="none" stroke="#fff" stroke-width="3.5" stroke-linecap="round"/><circle cx="25" cy="7" r="7" fill="${dot}" stroke="#fff" stroke-width="2"/></svg>`;
}

/** The title of the build's tab: how it is comes first if someone wants to know. */
export function titleOf(build: Build): string {
  const project = printable(build.project_name);
  if (changeOf(build) === null) return buildWords.of(project);
  return buildWords.titleState(statusWord(build.status, build.waiting_for), project);
}
