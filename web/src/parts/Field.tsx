import { type ReactNode, useId } from "react";
import style from "./Field.module.css";
import { Icon } from "./Icon.tsx";
import { printable } from "./printable.ts";

interface Control {
  id: string;
  "aria-describedby": string | undefined;
  "aria-invalid": true | undefined;
}

interface Props {
  label: ReactNode;
  /** What to write, below the label. */
  hint?: ReactNode;
  /** What is wrong with what is in it. */
  error?: string | undefined;
  /** The input, with the attributes that connect it with its label, hint and error. */
  children: (control: Control) => ReactNode;
}

/** A labelled input with its hint and its mistake. */
export function Field({ label, hint, error, children }: Props) {
  const id = useId();
  const describedBy = [hint !== undefined && `${id}-hint`, error !== undefined && `${id}-error`].filter(Boolean);
  return (
    <div className={style.field}>
      <label htmlFor={id}>{label}</label>
      {hint !== undefined && (
        <p id={`${id}-hint`} className={style.hint}>
          {hint}
        </p>
      )}
      {children({
        id,
        "aria-describedby": describedBy.length > 0 ? describedBy.join(" ") : undefined,
        "aria-invalid": error !== undefined ? true : undefined,
      })}
      {error !== undefined && <Mistake id={`${id}-error`}>{error}</Mistake>}
    </div>
  );
}

/** What is wrong with an input. */
export function Mistake({ id, children }: { id?: string; children: string }) {
  return (
    <p id={id} className={style.error}>
      <Icon name="warning" /> {printable(children)}
    </p>
  );
}
