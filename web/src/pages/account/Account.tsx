import { useAccount, useMe } from "../../api/queries.ts";
import { Copy } from "../../parts/Copy.tsx";
import { Failure } from "../../parts/Failure.tsx";
import { printable } from "../../parts/printable.ts";
import { InOrder, Skeleton } from "../../parts/Skeleton.tsx";
import { usePageTitle } from "../../parts/title.ts";
import { account as accountWords } from "../../words/account.ts";
import style from "./Account.module.css";
import { Keys } from "./Keys.tsx";
import { Organisations } from "./Organisations.tsx";
import { SignIns } from "./SignIns.tsx";
import { Webhooks } from "./Webhooks.tsx";
import { YourData } from "./YourData.tsx";

/** Who you are, and what acts for you: keys, browsers that are signed in, organisations. */
export default function Account() {
  usePageTitle(accountWords.title);
  const me = useMe();
  return (
    <InOrder className={style.page}>
      <h1>{accountWords.title}</h1>
      <You />
      <Keys />
      <SignIns />
      <Organisations />
      <Webhooks />
      {me.data !== undefined && <YourData user={me.data.user} />}
    </InOrder>
  );
}

function You() {
  const me = useMe();
  const account = useAccount();
  if (me.isPending || account.isPending) return <Skeleton />;
  if (me.isError) return <Failure error={me.error} retry={me.refetch} />;
  const { user, name, email } = me.data;
  const facts: [string, string | null | undefined][] = [
    [accountWords.name, name],
    [accountWords.email, email],
    [accountWords.plan, account.data?.plan],
    [accountWords.models, account.data && Object.values(account.data.models).join(", ")],
  ];
  return (
    <section className={style.card} aria-labelledby="you">
      <h2 id="you">{accountWords.who}</h2>
      <dl className={style.facts}>
        <div>
          <dt>{accountWords.user}</dt>
          <dd>
            <code>{printable(user)}</code> <Copy text={user} />
          </dd>
        </div>
        {facts.map(([label, value]) =>
          value ? (
            <div key={label}>
              <dt>{label}</dt>
              <dd>
                <bdi>{printable(value)}</bdi>
              </dd>
            </div>
          ) : null,
        )}
      </dl>
    </section>
  );
}
