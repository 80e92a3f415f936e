import type { ReactNode } from "react";
import style from "./Fleet.module.css";

/** A part of a page, with its title. */
export function Card({ id, title, children }: { id: string; title: string; children: ReactNode }) {
  return (
    <section className={style.card} aria-labelledby={id}>
      <h2 id={id}>{title}</h2>
      {children}
    </section>
  );
}
