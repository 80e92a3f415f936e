import { type ComponentType, type ReactNode, useState } from "react";
import { words } from "../words/index.ts";
import { Button } from "./Button.tsx";
import { Dialog } from "./Dialog.tsx";
import type { MenuProps } from "./Menu.tsx";

/** What a menu passes on to `Menu`. */
export type MenuOpening = Pick<MenuProps, "trigger" | "byKeyboard">;

interface Props<MenuOf> {
  /** What the button is called. */
  label: string;
  className?: string | undefined;
  /** What the button shows. */
  children: ReactNode;
  /** Imports the menu. Called again if it has failed. */
  load: () => Promise<{ default: ComponentType<MenuOf & MenuOpening> }>;
  /** What the menu is told. */
  menu: MenuOf;
}

type State<MenuOf> =
  | "closed"
  | "loading"
  | "failed"
  | { Menu: ComponentType<MenuOf & MenuOpening>; byKeyboard: boolean };

/** A button with a menu, whose code is loaded when it is first wanted: it is a fifth of what a page needs. */
export function MenuButton<MenuOf extends object>({ label, className, children, load, menu }: Props<MenuOf>) {
  const [state, setState] = useState<State<MenuOf>>("closed");
  const face = { type: "button", className, "aria-label": label, children } as const;

  if (typeof state === "object") {
    return <state.Menu {...menu} trigger={<button {...face} />} byKeyboard={state.byKeyboard} />;
  }

  const preload = () => void load().catch(() => undefined);
  async function open(byKeyboard: boolean) {
    setState("loading");
    try {
      const { default: Menu } = await load();
      setState({ Menu, byKeyboard });
    } catch {
      setState("failed");
    }
  }
  return (
    <>
      <button
        {...face}
        aria-haspopup="menu"
        aria-expanded={false}
        aria-busy={state === "loading" || undefined}
        onPointerEnter={preload}
        onFocus={preload}
        onClick={(event) => void open(event.detail === 0)}
        onKeyDown={(event) => {
          if (event.key !== "ArrowDown") return;
          event.preventDefault();
          void open(true);
        }}
      />
      {state === "failed" && (
        <Dialog
          title={words.shared.notShown}
          onClose={() => setState("closed")}
          actions={
            <Button kind="main" onClick={() => location.reload()}>
              {words.shared.reload}
            </Button>
          }
        >
          <p>{words.shared.notShownHelp}</p>
        </Dialog>
      )}
    </>
  );
}
