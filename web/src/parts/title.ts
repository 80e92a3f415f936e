import { useEffect } from "react";
import { words } from "../words/index.ts";
import { printable } from "./printable.ts";

/** The title of the tab while the page is shown. */
export function usePageTitle(title: string): void {
  useEffect(() => {
    document.title = title === "" ? words.shell.name : `${printable(title)} · ${words.shell.name}`;
  }, [title]);
}
