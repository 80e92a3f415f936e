import { useCallback, useEffect, useRef, useState } from "react";
import { printable } from "../../parts/printable.ts";
import { statusWord } from "../../parts/Status.tsx";
import { waitFor } from "./announcement.ts";
import type { Build } from "./data.ts";

/** The text of the page's one polite status line. A new one replaces one that was not read out yet; one in five seconds. */
export function useAnnouncer(): { text: string; announce: (text: string) => void } {
  const [text, setText] = useState("");
  const last = useRef(0);
  const next = useRef("");
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  const announce = useCallback((said: string) => {
    next.current = said;
    if (timer.current !== undefined) return;
    timer.current = setTimeout(
      () => {
        timer.current = undefined;
        last.current = Date.now();
        setText(next.current);
      },
      waitFor(last.current, Date.now()),
    );
  }, []);
  useEffect(() => () => clearTimeout(timer.current), []);
  return { text, announce };
}

/** Say when the status changes, and what that means. The agent's own sentences are in the feed. */
export function useStatusAnnouncements(build: Build, text: string, announce: (text: string) => void): void {
  const key = `${build.status} ${build.waiting_for} ${build.reason} ${build.cancel_requested_at !== null}`;
  const last = useRef(key);
  useEffect(() => {
    if (last.current === key) return;
    last.current = key;
    const word = statusWord(build.status, build.waiting_for);
    announce(build.status === "code" || build.status === "scaffold" ? word : `${word}. ${printable(text)}`);
  }, [key, build.status, build.waiting_for, text, announce]);
}
