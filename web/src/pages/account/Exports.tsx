import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useRef, useState } from "react";
import { api, dataOf, idempotencyKey, type Schemas } from "../../api/client.ts";
import { keys } from "../../api/queries.ts";
import { Button, ButtonLink } from "../../parts/Button.tsx";
import { Failure } from "../../parts/Failure.tsx";
import { printable } from "../../parts/printable.ts";
import { Skeleton } from "../../parts/Skeleton.tsx";
import { size } from "../../parts/size.ts";
import { Time } from "../../parts/Time.tsx";
import { paths } from "../../paths.ts";
import { exports as exportWords } from "../../words/exports.ts";
import style from "./Account.module.css";
import { Item } from "./Item.tsx";

const ASK_AGAIN_MS = 2_000;
const MOST_SHOWN = 5;

/**
 * The exports of a project, or without one of the account: ask for one, see how far it is, download it for a week. A
 * worker writes them, so that one of any size is whole, whatever happens to this page.
 */
export function Exports({ projectId }: { projectId?: string }) {
  const client = useQueryClient();
  const list = useQuery({
    queryKey: keys.exports(),
    queryFn: () => dataOf(api.GET("/v1/exports")),
    refetchInterval: (query) =>
      query.state.error === null && query.state.data?.exports.some(isBeingWritten) ? ASK_AGAIN_MS : false,
  });
  const [isBusy, setBusy] = useState(false);
  const [error, setError] = useState<Error>();
  const key = useRef(idempotencyKey());
  const own = list.data?.exports.filter((each) => each.project_id === (projectId ?? null)) ?? [];
  const shown = own.filter((each, place) => place < MOST_SHOWN || each.state === "ready");

  async function ask() {
    setBusy(true);
    setError(undefined);
    const header = { "idempotency-key": key.current };
    try {
      if (projectId === undefined) await api.POST("/v1/account/exports", { params: { header } });
      else await api.POST("/v1/projects/{project_id}/exports", { params: { path: { project_id: projectId }, header } });
      key.current = idempotencyKey();
      await client.invalidateQueries({ queryKey: keys.exports() });
    } catch (failure) {
      setError(failure as Error);
    } finally {
      setBusy(false);
    }
  }

  return (
    <>
      <div>
        <Button busy={isBusy || own.some(isBeingWritten)} onClick={() => void ask()}>
          {projectId === undefined ? exportWords.exportAccount : exportWords.exportProject}
        </Button>
      </div>
      {error && <Failure error={error} retry={() => void ask()} />}
      {list.isPending && <Skeleton />}
      {list.isError && <Failure error={list.error} retry={() => void list.refetch()} />}
      {own.length > 0 && (
        <ul className={style.list} aria-label={exportWords.title}>
          {shown.map((each) => (
            <Item
              key={each.id}
              title={
                <>
                  {exportWords.states[each.state]}
                  {each.problem !== null && <small>{printable(each.problem)}</small>}
                </>
              }
              facts={[
                [exportWords.askedFor, <Time key="asked" at={each.requested_at} as="ago" />],
                [exportWords.size, each.bytes === null ? "–" : size(each.bytes)],
                [
                  exportWords.deleted,
                  each.expires_at === null ? "–" : <Time key="until" at={each.expires_at} as="ago" />,
                ],
              ]}
            >
              {each.state === "ready" && (
                <ButtonLink small to={paths.exportFile(each.id)} download>
                  {exportWords.download}
                </ButtonLink>
              )}
            </Item>
          ))}
        </ul>
      )}
    </>
  );
}

function isBeingWritten({ state }: Schemas["ExportOut"]): boolean {
  return state === "queued" || state === "writing";
}
