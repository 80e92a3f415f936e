import { useState } from "react";
import { browserStorage } from "../../../parts/storage.ts";

const KEY = "cofounder-wrap";

/** Whether long lines wrap in this browser: on phones at first, else not. */
export function useWrap(): [boolean, (wrap: boolean) => void] {
  const [wrap, setWrap] = useState(() => {
    const kept = browserStorage.getItem(KEY);
    return kept === null ? matchMedia("(max-width: 40rem)").matches : kept === "true";
  });
  return [
    wrap,
    (value) => {
      browserStorage.setItem(KEY, String(value));
      setWrap(value);
    },
  ];
}
