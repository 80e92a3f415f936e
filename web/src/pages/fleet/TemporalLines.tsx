import type { Schemas } from "../../api/client.ts";
import { Copy } from "../../parts/Copy.tsx";
import { printable } from "../../parts/printable.ts";
import { fleet as words } from "../../words/fleet.ts";
import style from "./Fleet.module.css";

/** How to see the same builds in Temporal: a query for its UI, and a command. */
export function TemporalLines({ list }: { list: Schemas["FleetBuildList"] }) {
  const text = words.temporal;
  const lines = [
    [text.query, list.temporal_query, text.copyQuery],
    [text.command, list.temporal_command, text.copyCommand],
  ] as const;
  return (
    <details className={style.temporal}>
      <summary>{text.title}</summary>
      <dl>
        {lines.map(([name, line, label]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>
              <code>{printable(line)}</code> <Copy text={line} label={label} />
            </dd>
          </div>
        ))}
      </dl>
      {list.temporal_query_left_out.length > 0 && (
        <p className={style.quiet}>{text.leftOut(list.temporal_query_left_out.join(", "))}</p>
      )}
    </details>
  );
}
