import { useQuery } from "@tanstack/react-query";
import { api, dataOf } from "../../api/client.ts";
import { Copy } from "../../parts/Copy.tsx";
import { Failure } from "../../parts/Failure.tsx";
import { printable } from "../../parts/printable.ts";
import { Skeleton } from "../../parts/Skeleton.tsx";
import { Time } from "../../parts/Time.tsx";
import { usePageTitle } from "../../parts/title.ts";
import { account as accountWords } from "../../words/account.ts";
import style from "./Account.module.css";

const LOOK_AGAIN_MS = 3_000;

async function erasureOf(id: string) {
  const read = await dataOf(api.GET("/v1/certificates/{certificate_id}", { params: { path: { certificate_id: id } } }));
  if (!("requested_at" in read)) throw new Error(accountWords.noErasure);
  return read;
}

/** How far the deletion of an account is, and then its certificate. For someone who can't sign in any more. */
export default function Deleted({ id }: { id: string }) {
  usePageTitle(accountWords.deletedTitle);
  const erasure = useQuery({
    queryKey: ["certificate", id],
    queryFn: () => erasureOf(id),
    refetchInterval: (query) => (query.state.data?.finished_at ? false : LOOK_AGAIN_MS),
  });
  return (
    <main className={`${style.page} ${style.alone}`}>
      <h1>{accountWords.deletedTitle}</h1>
      {erasure.isPending && <Skeleton />}
      {erasure.isError && <Failure error={erasure.error} retry={erasure.refetch} />}
      {erasure.data !== undefined && (
        <section className={style.card} aria-labelledby="certificate">
          <h2 id="certificate">{accountWords.certificate}</h2>
          <p role="status">{erasure.data.finished_at ? accountWords.deleted : accountWords.beingDeleted}</p>
          <p className={style.help}>{accountWords.certificateHelp}</p>
          <dl className={style.facts}>
            <div>
              <dt>{accountWords.user}</dt>
              <dd>
                <code>{printable(erasure.data.user_id)}</code>
              </dd>
            </div>
            <div>
              <dt>{accountWords.askedFor}</dt>
              <dd>
                <Time at={erasure.data.requested_at} />
              </dd>
            </div>
            {erasure.data.finished_at && (
              <div>
                <dt>{accountWords.finished}</dt>
                <dd>
                  <Time at={erasure.data.finished_at} />
                </dd>
              </div>
            )}
            {Object.entries(erasure.data.counts)
              .filter(([, count]) => count > 0)
              .map(([kind, count]) => (
                <div key={kind}>
                  <dt>{printable(kind.replaceAll("_", " "))}</dt>
                  <dd>{count}</dd>
                </div>
              ))}
          </dl>
          {erasure.data.sha256 && (
            <p className={style.secret}>
              <code>{erasure.data.sha256}</code>
              <Copy text={erasure.data.sha256} />
            </p>
          )}
        </section>
      )}
    </main>
  );
}
