import { useState } from "react";

const KEY = "cofounder-wrap";

/** Whether long lines wrap in this browser: on phones at first, else not. */
export function useWrap(): [boolean, (wrap: boolean) => void] {
  const [wrap, setWrap] = useState(() => {
    const kept = localStorage.getItem(KEY);
    return kept === null ? matchMedia("(max-width: 40rem)").matches : kept === "true";
  });
  return [
    wrap,
    (value) => {
      localStorage.setItem(KEY, String(value));
      setWrap(value);
    },
  ];
}
