import { type RefObject, useEffect, useLayoutEffect, useRef, useState, useSyncExternalStore } from "react";

const paper = matchMedia("print");
let isBeingPrinted = false;

const isOnPaper = () => isBeingPrinted || paper.matches;

// The page is rendered between these events and the printing: updates of an external store wait for nothing.
function subscribe(changed: () => void): () => void {
  const before = () => {
    isBeingPrinted = true;
    changed();
  };
  const after = () => {
    isBeingPrinted = false;
    changed();
  };
  addEventListener("beforeprint", before);
  addEventListener("afterprint", after);
  paper.addEventListener("change", changed);
  return () => {
    removeEventListener("beforeprint", before);
    removeEventListener("afterprint", after);
    paper.removeEventListener("change", changed);
  };
}

interface Printing {
  isPrinting: boolean;
  /** Whether the box shows again what it showed before it was printed. */
  isOnScreen: boolean;
}

/** Whether the page is being printed. On paper nothing scrolls; afterwards the box is scrolled to where it was. */
export function usePrinting(scroller: RefObject<HTMLElement | null>): Printing {
  const isPrinting = useSyncExternalStore(subscribe, isOnPaper);
  const top = useRef(0);
  const [isScrolled, setScrolled] = useState(true);

  useEffect(() => {
    const box = scroller.current;
    const note = () => {
      if (box !== null && !isOnPaper()) top.current = box.scrollTop;
    };
    box?.addEventListener("scroll", note, { passive: true });
    return () => box?.removeEventListener("scroll", note);
  }, [scroller]);

  useLayoutEffect(() => {
    if (isPrinting) {
      const { current: box } = scroller;
      const place = top.current;
      setScrolled(false);
      return () => {
        if (box !== null) box.scrollTop = place;
      };
    }
    // Others hear in the next frame that the box has been scrolled.
    let frame = requestAnimationFrame(() => {
      frame = requestAnimationFrame(() => setScrolled(true));
    });
    return () => cancelAnimationFrame(frame);
  }, [isPrinting, scroller]);
  return { isPrinting, isOnScreen: !isPrinting && isScrolled };
}
