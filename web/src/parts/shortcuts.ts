import { useEffect, useRef, useSyncExternalStore } from "react";
import { browserStorage } from "./storage.ts";

const KEY = "cofounder-single-keys";
const listeners = new Set<() => void>();

/** Whether single keys act in this browser (WCAG 2.1.4: they can be switched off). */
export function singleKeysOn(): boolean {
  return browserStorage.getItem(KEY) !== "off";
}

/** Switch single keys on or off for this browser. */
export function setSingleKeys(on: boolean): void {
  browserStorage.setItem(KEY, on ? "on" : "off");
  for (const listener of listeners) listener();
}

/** Whether single keys act, as a hook. */
export function useSingleKeys(): boolean {
  return useSyncExternalStore((changed) => {
    listeners.add(changed);
    return () => listeners.delete(changed);
  }, singleKeysOn);
}

/** What of a key press decides whether it is a single key for the page. */
export interface Press {
  readonly key: string;
  readonly ctrlKey: boolean;
  readonly metaKey: boolean;
  readonly altKey: boolean;
  readonly defaultPrevented: boolean;
  readonly isComposing: boolean;
  readonly target: EventTarget | null;
}

/** Whether the page may act on this press: not in a field or an open menu or dialog, and not together with Ctrl, Alt or ⌘. */
export function isForPage(press: Press): boolean {
  if (press.defaultPrevented || press.isComposing || press.ctrlKey || press.metaKey || press.altKey) return false;
  const target = press.target as { closest?: (selector: string) => unknown; isContentEditable?: boolean } | null;
  if (target?.isContentEditable) return false;
  return !target?.closest?.("input, textarea, select, dialog, [role=menu], [role=slider]");
}

/** Act on single keys while the component is shown and they are switched on. A handler that returns false has not acted. */
export function useSingleKeyActions(actions: Record<string, () => unknown>): void {
  const latest = useRef(actions);
  latest.current = actions;
  useEffect(() => {
    const onPress = (event: KeyboardEvent) => {
      if (!singleKeysOn() || !isForPage(event)) return;
      const action = latest.current[event.key];
      if (action !== undefined && action() !== false) event.preventDefault();
    };
    addEventListener("keydown", onPress);
    return () => removeEventListener("keydown", onPress);
  }, []);
}
