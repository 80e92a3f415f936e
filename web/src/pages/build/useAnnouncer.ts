import { useCallback, useEffect, useRef, useState } from "react";
import { waitFor } from "./announcement.ts";

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
