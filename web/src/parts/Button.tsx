import type { ButtonHTMLAttributes, ReactNode } from "react";
import { Link } from "wouter";
import style from "./Button.module.css";

export type ButtonKind = "main" | "plain" | "quiet" | "danger";

interface Props extends ButtonHTMLAttributes<HTMLButtonElement> {
  kind?: ButtonKind;
  /** The action is under way. The button keeps the focus and does nothing. */
  busy?: boolean;
  small?: boolean;
}

/** A button. Its text is a verb. */
export function Button({ kind = "plain", busy = false, small = false, className, onClick, children, ...rest }: Props) {
  return (
    <button
      type="button"
      {...rest}
      className={[style.button, style[kind], small && style.small, className].filter(Boolean).join(" ")}
      aria-disabled={busy || rest["aria-disabled"]}
      aria-busy={busy || undefined}
      onClick={busy ? (event) => event.preventDefault() : onClick}
    >
      {children}
    </button>
  );
}

interface LinkProps {
  to: string;
  kind?: ButtonKind;
  small?: boolean;
  /** An address of the API, such as a download: the browser goes there, not the app. */
  outside?: boolean;
  download?: boolean | string;
  children: ReactNode;
}

/** A link that looks like a button. */
export function ButtonLink({ to, kind = "plain", small = false, outside = false, download, children }: LinkProps) {
  const className = [style.button, style[kind], small && style.small].filter(Boolean).join(" ");
  if (outside || download !== undefined) {
    return (
      <a href={to} className={className} download={download}>
        {children}
      </a>
    );
  }
  return (
    <Link to={to} className={className}>
      {children}
    </Link>
  );
}
