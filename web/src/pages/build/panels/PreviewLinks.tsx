import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useId, useState } from "react";
import { api, dataOf } from "../../../api/client.ts";
import { keys } from "../../../api/queries.ts";
import { Button } from "../../../parts/Button.tsx";
import { Copy } from "../../../parts/Copy.tsx";
import { Failure } from "../../../parts/Failure.tsx";
import { Notice } from "../../../parts/Notice.tsx";
import { printable } from "../../../parts/printable.ts";
import { Time } from "../../../parts/Time.tsx";
import { panels as panelsWords } from "../../../words/panels.ts";
import style from "./Preview.module.css";

/** Links with which people without an account see the preview: make, copy, revoke. */
export function PreviewLinks({ build, mayChange }: { build: string; mayChange: boolean }) {
  const w = panelsWords.preview;
  const client = useQueryClient();
  const key = keys.ofBuild(build, "preview-links");
  const path = { build_id: build };
  const [hours, setHours] = useState(168);
  const hoursId = useId();
  const links = useQuery({
    queryKey: key,
    queryFn: () => dataOf(api.GET("/v1/builds/{build_id}/preview/links", { params: { path } })),
  });
  const changed = () => client.invalidateQueries({ queryKey: key });
  const make = useMutation({
    mutationFn: () => dataOf(api.POST("/v1/builds/{build_id}/preview/links", { params: { path }, body: { hours } })),
    onSuccess: changed,
  });
  const revoke = useMutation({
    mutationFn: (id: string) =>
      api.DELETE("/v1/builds/{build_id}/preview/links/{link_id}", { params: { path: { ...path, link_id: id } } }),
    onSuccess: (_, id) => {
      if (make.data?.id === id) make.reset();
      return changed();
    },
  });
  const listed = links.data?.links ?? [];
  if (!mayChange && listed.length === 0) return null;
  return (
    <section className={style.links} aria-labelledby={`${hoursId}-title`}>
      <h3 id={`${hoursId}-title`}>{w.links}</h3>
      <p className={style.quiet}>{w.linksHelp}</p>
      {mayChange && (
        <div className={style.row}>
          <label htmlFor={hoursId}>{w.hours}</label>
          <select
            id={hoursId}
            className={style.hours}
            value={hours}
            onChange={(event) => setHours(Number(event.target.value))}
          >
            {Object.entries(w.lasts).map(([value, text]) => (
              <option key={value} value={value}>
                {text}
              </option>
            ))}
          </select>
          <Button busy={make.isPending} onClick={() => make.mutate()}>
            {w.makeLink}
          </Button>
        </div>
      )}
      {make.isError && <Failure error={make.error} />}
      {make.data !== undefined && (
        <Notice kind="good" title={w.madeTitle}>
          <div className={style.made}>
            <code className={style.link}>{make.data.url}</code>
            <Copy text={make.data.url} label={w.copyLink} />
          </div>
        </Notice>
      )}
      {links.isError && <Failure error={links.error} retry={() => links.refetch()} />}
      {revoke.isError && <Failure error={revoke.error} />}
      {links.data !== undefined && listed.length === 0 && <p className={style.quiet}>{w.noLinks}</p>}
      <ul className={style.linkList}>
        {listed.map((link) => (
          <li key={link.id} className={style.linkRow}>
            <span>
              {w.linkBy(printable(link.created_by))} <Time at={link.created_at} as="ago" />, {w.linkUntil}{" "}
              <Time at={link.expires_at} />
            </span>
            {mayChange && (
              <Button
                small
                kind="danger"
                busy={revoke.isPending && revoke.variables === link.id}
                onClick={() => revoke.mutate(link.id)}
              >
                {w.revoke}
              </Button>
            )}
          </li>
        ))}
      </ul>
      <p className="visually-hidden" role="status">
        {revoke.isSuccess ? w.revoked : ""}
      </p>
    </section>
  );
}
