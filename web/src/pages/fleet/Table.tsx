import type { ReactNode } from "react";
import { Scroll } from "../../parts/Scroll.tsx";
import style from "./Fleet.module.css";

interface Props {
  caption: string;
  heads: readonly string[];
  rows: readonly { key: string; cells: readonly ReactNode[] }[];
  /** What is said instead of a table without rows. */
  empty?: string;
  /** From this column on, cells are numbers. */
  numbersFrom?: number;
  foot?: readonly ReactNode[];
}

/** A plain table, which scrolls sideways if its place is too narrow. Each row is named by its first cell. */
export function Table({ caption, heads, rows, empty, numbersFrom = heads.length, foot }: Props) {
  if (rows.length === 0 && empty !== undefined) {
    return (
      <div>
        <h3>{caption}</h3>
        <p className={style.quiet}>{empty}</p>
      </div>
    );
  }
  const kind = (index: number) => (index >= numbersFrom ? "number" : undefined);
  return (
    <Scroll label={caption} className={style.scroll}>
      <table className={style.plain}>
        <caption>{caption}</caption>
        <thead>
          <tr>
            {heads.map((head, index) => (
              <th key={head} scope="col" className={kind(index)}>
                {head}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map(({ key, cells: [first, ...others] }) => (
            <tr key={key}>
              <th scope="row">{first}</th>
              {others.map((cell, index) => (
                <td key={heads[index + 1]} className={kind(index + 1)}>
                  {cell}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
        {foot !== undefined && (
          <tfoot>
            <tr>
              {foot.map((cell, index) => (
                <td key={heads[index]} className={kind(index)}>
                  {cell}
                </td>
              ))}
            </tr>
          </tfoot>
        )}
      </table>
    </Scroll>
  );
}
