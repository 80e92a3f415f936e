import type { ReactNode } from "react";
import { Icon, type IconName } from "./Icon.tsx";
import style from "./Notice.module.css";

export type NoticeKind = "info" | "good" | "warn" | "bad" | "rest";

const ICONS: Record<NoticeKind, IconName> = {
  info: "info",
  good: "check",
  warn: "warning",
  bad: "error",
  rest: "moon",
};

/**
 * A message in the page: what is so, and what to do. Read out at once only if `alert`. With `isPage`, it stands in place
 * of a page, and its title is the page's.
 */
export function Notice({
  kind,
  title,
  alert = false,
  isPage = false,
  children,
}: {
  kind: NoticeKind;
  title?: ReactNode;
  alert?: boolean;
  isPage?: boolean;
  children?: ReactNode;
}) {
  const Title = isPage ? "h1" : "p";
  return (
    <div className={`${style.notice} ${style[kind]}`} role={alert ? "alert" : undefined}>
      <Icon name={ICONS[kind]} />
      <div className={style.body}>
        {title !== undefined && <Title className={style.title}>{title}</Title>}
        {children}
      </div>
    </div>
  );
}
