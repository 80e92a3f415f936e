import { useEffect, useEffectEvent, useState } from "react";
import { Problem } from "../api/client.ts";
import { words } from "../words/index.ts";
import { Button } from "./Button.tsx";
import { Notice } from "./Notice.tsx";
import { printable } from "./printable.ts";

/**
 * An error of the API in place of what it was asked for: what is wrong, what to do, and a button that asks again.
 * `page` is the title of the page if it stands in place of a whole one.
 */
export function Failure({ error, retry, page }: { error: Error; retry?: () => void; page?: string }) {
  const wait = error instanceof Problem ? error.retryAfter : undefined;
  const [left, setLeft] = useState(wait ?? 0);
  // Callers give a new function each time they are drawn, which must not restart the second.
  const askAgain = useEffectEvent(() => retry?.());
  useEffect(() => setLeft(wait ?? 0), [wait]);
  useEffect(() => {
    if (left <= 0) return;
    const timer = setTimeout(() => {
      setLeft(left - 1);
      if (left === 1) askAgain();
    }, 1_000);
    return () => clearTimeout(timer);
  }, [left]);
  return (
    <>
      {page !== undefined && <h1 className="visually-hidden">{page}</h1>}
      <Notice kind="bad" title={printable(error.message)} alert>
        {left > 0 && retry !== undefined && <p>{words.shared.again(left)}</p>}
        {retry !== undefined && <Button onClick={retry}>{words.shared.retry}</Button>}
      </Notice>
    </>
  );
}
