import type { ReactNode } from "react";
import { words } from "../words/index.ts";
import style from "./Skeleton.module.css";

/**
 * Grey lines in place of what is loading; not seen for the first 150 ms, so that fast answers do not flash.
 * `page` is the title of the page if they stand in place of a whole one.
 */
export function Skeleton({ lines = 3, page }: { lines?: number; page?: string }) {
  return (
    <>
      {page !== undefined && <h1 className="visually-hidden">{page}</h1>}
      <div className={style.skeleton} role="status" aria-label={words.shared.loading} data-loading>
        {Array.from({ length: lines }, (_, index) => (
          <span key={index} />
        ))}
      </div>
    </>
  );
}

/**
 * Parts of a page, one below the other. Those below one that is loading are not shown yet, as they would move; after
 * `--in-order-patience` they are, so that an answer that does not come hides nothing else.
 */
export function InOrder({ className, children }: { className?: string; children: ReactNode }) {
  return <div className={`${style.inOrder} ${className ?? ""}`}>{children}</div>;
}
