import { cloneElement, type ReactElement } from "react";
import style from "./Details.module.css";

interface Props {
  id: string;
  label: string;
  help?: string;
  /** The input. It gets the id, and the help as its description. */
  children: ReactElement<{ id?: string; "aria-describedby"?: string | undefined }>;
}

/** An input with its label above and its help below. */
export function Field({ id, label, help, children }: Props) {
  const helpId = help === undefined ? undefined : `${id}-help`;
  return (
    <div className={style.field}>
      <label htmlFor={id}>{label}</label>
      {cloneElement(children, { id, "aria-describedby": helpId })}
      {help !== undefined && (
        <small id={helpId} className={style.quiet}>
          {help}
        </small>
      )}
    </div>
  );
}
