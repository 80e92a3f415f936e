import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { api, dataOf, type Schemas } from "../../api/client.ts";
import { Button } from "../../parts/Button.tsx";
import { Confirm } from "../../parts/Confirm.tsx";
import { Failure } from "../../parts/Failure.tsx";
import { printable } from "../../parts/printable.ts";
import { Skeleton } from "../../parts/Skeleton.tsx";
import { Time } from "../../parts/Time.tsx";
import { account as accountWords } from "../../words/account.ts";
import style from "./Account.module.css";
import { Item } from "./Item.tsx";

const QUERY = ["sign-ins"] as const;

/** The browsers that are signed in as the user. */
export function SignIns() {
  const client = useQueryClient();
  const list = useQuery({ queryKey: QUERY, queryFn: () => dataOf(api.GET("/v1/sign-ins")) });
  const [ending, setEnding] = useState<Schemas["SignInOut"]>();
  return (
    <section className={style.card} aria-labelledby="sign-ins">
      <h2 id="sign-ins">{accountWords.signIns}</h2>
      <p className={style.help}>{accountWords.signInsHelp}</p>
      {list.isPending && <Skeleton />}
      {list.isError && <Failure error={list.error} retry={list.refetch} />}
      <ul className={style.list}>
        {list.data?.sign_ins.map((signIn) => (
          <Item
            key={signIn.id}
            title={
              <>
                {accountWords.method}: {signIn.method === "link" ? accountWords.link : printable(signIn.method)}
                {signIn.current && <small>{accountWords.current}</small>}
              </>
            }
            facts={[
              [accountWords.created, <Time key="made" at={signIn.created_at} as="ago" />],
              [accountWords.lastUsed, <Time key="used" at={signIn.last_used_at} as="ago" />],
              [accountWords.expires, <Time key="expires" at={signIn.expires_at} as="ago" />],
            ]}
          >
            {!signIn.current && (
              <Button small kind="danger" onClick={() => setEnding(signIn)}>
                {accountWords.signOut}
              </Button>
            )}
          </Item>
        ))}
      </ul>
      {ending !== undefined && (
        <Confirm
          danger
          title={accountWords.signOutTitle}
          verb={accountWords.signOut}
          onClose={() => setEnding(undefined)}
          act={async () => {
            await api.DELETE("/v1/sign-ins/{sign_in_id}", { params: { path: { sign_in_id: ending.id } } });
            await client.invalidateQueries({ queryKey: QUERY });
          }}
        >
          <p>{accountWords.signOutHelp}</p>
        </Confirm>
      )}
    </section>
  );
}
