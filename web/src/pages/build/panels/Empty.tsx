import type { ReactNode } from "react";
import style from "./Empty.module.css";

/** What a panel shows before there is anything. */
export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className={style.empty}>
      <p className={style.title}>{title}</p>
      <div>{children}</div>
    </div>
  );
}
