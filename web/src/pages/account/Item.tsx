import type { ReactNode } from "react";
import style from "./Account.module.css";

/** A thing in a list: its title, some facts and its buttons; a row, or a card on a phone. */
export function Item({
  title,
  facts,
  children,
}: {
  title: ReactNode;
  facts: readonly (readonly [string, ReactNode])[];
  children?: ReactNode;
}) {
  return (
    <li className={style.item}>
      <p className={style.title}>{title}</p>
      <dl>
        {facts.map(([label, value]) => (
          <div key={label}>
            <dt>{label}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      <div className={style.buttons}>{children}</div>
    </li>
  );
}
