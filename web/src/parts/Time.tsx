import { useEffect, useState } from "react";
import { ago, clock, utcAndLocal } from "./clock.ts";

export { ago, clock, duration, utcAndLocal } from "./clock.ts";

const WHOLE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** The time now, again every `seconds`. */
export function useNow(seconds: number): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), seconds * 1000);
    return () => clearInterval(timer);
  }, [seconds]);
  return now;
}

/** A point in time: as a clock, or how long ago it was; the whole of it in the title. */
export function Time({ at, as = "clock" }: { at: string; as?: "clock" | "ago" | "utc" }) {
  const now = useNow(as === "ago" ? 30 : 3600);
  const date = new Date(at);
  const text = as === "ago" ? ago(date, now) : as === "utc" ? utcAndLocal(date) : clock(date);
  return (
    <time dateTime={at} title={WHOLE.format(date)}>
      {text}
    </time>
  );
}
