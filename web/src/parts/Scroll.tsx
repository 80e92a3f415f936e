import type { CSSProperties, ReactNode } from "react";

interface Props {
  /** What is in it, for those who do not see it. */
  label: string;
  className?: string | undefined;
  style?: CSSProperties;
  children: ReactNode;
}

/** A part of the page that may be wider or higher than its place. It takes the keyboard, which then scrolls it. */
export function Scroll({ label, className, style, children }: Props) {
  const focusable = { tabIndex: 0 };
  return (
    <div {...focusable} role="group" aria-label={label} className={className} style={style}>
      {children}
    </div>
  );
}
