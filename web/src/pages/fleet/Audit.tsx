import { useInfiniteQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Link } from "wouter";
import { api, dataOf, type Schemas } from "../../api/client.ts";
import { Button } from "../../parts/Button.tsx";
import { Failure } from "../../parts/Failure.tsx";
import { Field } from "../../parts/Field.tsx";
import { printable } from "../../parts/printable.ts";
import { Time } from "../../parts/Time.tsx";
import { paths } from "../../paths.ts";
import { fleet as words } from "../../words/fleet.ts";
import { Card } from "./Card.tsx";
import { keys } from "./data.ts";
import style from "./Fleet.module.css";
import { Table } from "./Table.tsx";

const text = words.auditPart;

/** What operators did, and what destroyed something or gave someone a right. Read on request: reading is recorded too. */
export function Audit() {
  const [isShown, setShown] = useState(false);
  return (
    <Card id="audit" title={text.title}>
      <p className={style.quiet}>{text.help}</p>
      {isShown ? (
        <Entries />
      ) : (
        <div>
          <Button onClick={() => setShown(true)}>{text.show}</Button>
        </div>
      )}
    </Card>
  );
}

function Entries() {
  const [user, setUser] = useState("");
  const entries = useInfiniteQuery({
    queryKey: [...keys.controls, "audit", user],
    queryFn: ({ pageParam }) =>
      dataOf(
        api.GET("/v1/ops/audit", {
          params: {
            query: {
              limit: 50,
              ...(user === "" ? {} : { user }),
              ...(pageParam === undefined ? {} : { cursor: pageParam }),
            },
          },
        }),
      ),
    initialPageParam: undefined as number | undefined,
    getNextPageParam: (last) => last.next_cursor ?? undefined,
    staleTime: Number.POSITIVE_INFINITY,
  });
  const rows = entries.data?.pages.flatMap((page) => page.entries) ?? [];
  return (
    <>
      <form
        className={style.inline}
        onSubmit={(event) => {
          event.preventDefault();
          setUser(String(new FormData(event.currentTarget).get("user")).trim());
        }}
      >
        <Field label={text.of}>
          {(control) => <input {...control} name="user" type="search" autoComplete="off" />}
        </Field>
        <Button type="submit">{text.filter}</Button>
        <Button kind="quiet" busy={entries.isFetching} onClick={() => void entries.refetch()}>
          {text.again}
        </Button>
      </form>
      {entries.isError && <Failure error={entries.error} retry={() => void entries.refetch()} />}
      {entries.data !== undefined && (
        <Table
          caption={text.caption}
          empty={text.none}
          heads={[text.at, text.who, text.act, text.on, text.details]}
          rows={rows.map((entry) => ({ key: String(entry.id), cells: cellsOf(entry) }))}
        />
      )}
      {entries.hasNextPage && (
        <div>
          <Button small busy={entries.isFetchingNextPage} onClick={() => void entries.fetchNextPage()}>
            {text.more}
          </Button>
        </div>
      )}
    </>
  );
}

function cellsOf(entry: Schemas["AuditEntryOut"]) {
  return [
    <Time key="at" at={entry.at} />,
    printable(entry.actor),
    <code key="act">{entry.action}</code>,
    <>
      {entry.user_id && <Link to={paths.fleetUser(entry.user_id)}>{printable(entry.user_id)}</Link>}{" "}
      {entry.build_id && <Link to={paths.fleetBuild(entry.build_id)}>{entry.build_id.slice(0, 8)}</Link>}
    </>,
    <code key="details" className={style.small}>
      {printable(JSON.stringify(entry.fields))}
    </code>,
  ];
}
