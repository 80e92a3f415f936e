import { useEffect, useState } from "react";
import { words } from "../words/index.ts";
import style from "./Skeleton.module.css";

/** Grey lines in place of what is loading; nothing for the first 150 ms, so that fast answers do not flash. */
export function Skeleton({ lines = 3 }: { lines?: number }) {
  const [shown, setShown] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setShown(true), 150);
    return () => clearTimeout(timer);
  }, []);
  if (!shown) return null;
  return (
    <div className={style.skeleton} role="status" aria-label={words.shared.loading}>
      {Array.from({ length: lines }, (_, index) => (
        <span key={index} />
      ))}
    </div>
  );
}
