import assert from "node:assert/strict";
import { test } from "node:test";
import { QueryClient, QueryObserver } from "@tanstack/react-query";
import { keepNewest } from "./keepNewest.ts";

test("answers that are not used are forgotten, the oldest first; others stay", () => {
  const client = new QueryClient({ defaultOptions: { queries: { gcTime: Number.POSITIVE_INFINITY } } });
  const numbers = [1, 2, 3, 4, 5];
  for (const number of numbers) client.setQueryData(["calls", number], `answer ${number}`, { updatedAt: number });
  client.setQueryData(["other"], "answer", { updatedAt: 0 });
  const stop = new QueryObserver(client, { queryKey: ["calls", 1], staleTime: Number.POSITIVE_INFINITY }).subscribe(
    () => undefined,
  );
  keepNewest(client, ["calls"], 2);
  assert.deepEqual(
    numbers.filter((number) => client.getQueryData(["calls", number]) !== undefined),
    [1, 4, 5],
  );
  assert.equal(client.getQueryData(["other"]), "answer");
  stop();
  client.clear();
});
