import { type QueryKey, useQueryClient } from "@tanstack/react-query";
import { useEffect, useRef } from "react";
import { AccountNews } from "./accountNews.ts";

/** How often a list is asked for again, in milliseconds: while its page is seen, and while it is not or hears of changes. */
const POLL_MS = { seldom: 30_000, often: 5_000 };

/**
 * Reads what is kept under the key again when a build has changed. The key has to be the same at each call.
 * Returns after how many milliseconds to ask again anyway, for `refetchInterval`.
 */
export function useAccountNews(queryKey: QueryKey): () => number {
  const client = useQueryClient();
  const news = useRef<AccountNews>(undefined);
  const key = useRef(queryKey);
  useEffect(() => {
    const following = new AccountNews(() => void client.invalidateQueries({ queryKey: key.current }));
    news.current = following;
    following.start();
    return () => following.stop();
  }, [client]);
  return () => (document.hidden || news.current?.isLive() ? POLL_MS.seldom : POLL_MS.often);
}
