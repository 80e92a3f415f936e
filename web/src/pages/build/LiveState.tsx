import { useEffect, useState } from "react";
import type { Behind } from "../../feed/catchingUp.ts";
import type { Live } from "../../feed/stream.ts";
import { Button } from "../../parts/Button.tsx";
import { clock } from "../../parts/Time.tsx";
import { feed as feedWords } from "../../words/feed.ts";
import style from "./LiveState.module.css";

const text = feedWords.live;

/** The time now while the feed is not connected, once a second. */
function useCountdown(retryAt: number | null): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    if (retryAt === null) return;
    setNow(Date.now());
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, [retryAt]);
  return retryAt === null ? 0 : Math.max(0, Math.ceil((retryAt - now) / 1000));
}

function wordOf(live: Live, seconds: number): string {
  switch (live.kind) {
    case "reconnecting":
      return text.reconnecting(live.attempt, seconds);
    case "signed out":
      return text.signedOut;
    case "not found":
      return text.notFound;
    default:
      return text[live.kind];
  }
}

interface Props {
  live: Live;
  /** When something last arrived, in milliseconds since 1970. */
  asOf: number | null;
  /** How far it has come with what happened while it was not connected; null if it is not behind. */
  behind: Behind | null;
  retryNow: () => void;
}

/** How the feed is connected: a dot with its word, and a button while it is not. */
export function LiveState({ live, asOf, behind, retryNow }: Props) {
  const isLost = live.kind === "reconnecting" || live.kind === "offline";
  const seconds = useCountdown(isLost ? live.retryAt : null);
  // The seconds are not read out: only that the connection is lost, and that it is back.
  const announced = live.kind === "reconnecting" ? text.reconnecting(live.attempt, 0) : wordOf(live, 0);
  const shown = behind === null ? wordOf(live, seconds) : text.catchingUp(behind.last, behind.newest);
  return (
    <span className={style.live} data-live={live.kind}>
      <span className={style.dot} aria-hidden />
      <span aria-hidden>
        {shown}
        {isLost && asOf !== null && <span className={style.asOf}>, {text.asOf(clock(new Date(asOf), true))}</span>}
      </span>
      <span className="visually-hidden" role="status">
        {isLost && live.kind === "reconnecting" && live.attempt > 1 ? text.reconnecting(1, 0) : announced}
      </span>
      {isLost && (
        <Button small kind="quiet" onClick={retryNow}>
          {text.tryNow}
        </Button>
      )}
    </span>
  );
}
