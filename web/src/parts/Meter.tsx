import type { Schemas } from "../api/client.ts";
import { words } from "../words/index.ts";
import style from "./Meter.module.css";

/** How much of today's allowance is used: a bar with its percent and its level in words. */
export function Meter({ budget, compact = false }: { budget: Schemas["BudgetOut"]; compact?: boolean }) {
  const { percent, level } = budget;
  if (percent === null || percent === undefined) {
    return <span className={style.text}>{words.meter.unlimited}</span>;
  }
  const text = words.meter.used(percent, level);
  return (
    <span className={`${style.meter} ${style[level] ?? ""} ${compact ? style.compact : ""}`}>
      <span
        className={style.track}
        {...(compact
          ? { "aria-hidden": true }
          : {
              role: "meter",
              "aria-valuemin": 0,
              "aria-valuemax": 100,
              "aria-valuenow": Math.min(percent, 100),
              "aria-valuetext": text,
              "aria-label": words.meter.label,
            })}
      >
        <span className={style.fill} style={{ inlineSize: `${Math.min(percent, 100)}%` }} />
      </span>
      <span className={style.text} aria-hidden={!compact}>
        {compact ? `${percent} %` : text}
      </span>
    </span>
  );
}
