import { DropdownMenu } from "radix-ui";
import type { FocusEvent, ReactElement, ReactNode } from "react";
import { Icon, type IconName } from "./Icon.tsx";
import style from "./Menu.module.css";

export interface MenuProps {
  /** The button that opens it. */
  trigger: ReactElement;
  /** Whether a key has opened it the first time: then its first item has the focus. */
  byKeyboard: boolean;
  children: ReactNode;
}

/** A menu at a button, open when it is first rendered. Render it by `MenuButton`, which loads it when it is wanted. */
export function Menu({ trigger, byKeyboard, children }: MenuProps) {
  // Its library looks at the keys that it has seen, and it was not loaded yet when the first one was pressed.
  function focusFirst(event: FocusEvent<HTMLElement>) {
    if (!byKeyboard || event.target !== event.currentTarget || event.currentTarget.dataset.focused) return;
    event.currentTarget.dataset.focused = "yes";
    event.currentTarget.querySelector<HTMLElement>('[role="menuitem"]')?.focus();
  }
  return (
    <DropdownMenu.Root defaultOpen modal={false}>
      <DropdownMenu.Trigger asChild>{trigger}</DropdownMenu.Trigger>
      {/* Within the landmark, so that screen readers do not find it outside of all parts of the page. */}
      <DropdownMenu.Portal container={document.querySelector("main")}>
        <DropdownMenu.Content className={style.menu} align="end" sideOffset={6} onFocus={focusFirst}>
          {children}
        </DropdownMenu.Content>
      </DropdownMenu.Portal>
    </DropdownMenu.Root>
  );
}

/** An item that does something. */
export function MenuItem(props: { icon: IconName; onSelect: () => void; danger?: boolean; children: ReactNode }) {
  return (
    <DropdownMenu.Item
      className={`${style.item} ${props.danger ? style.danger : ""}`}
      onSelect={() => props.onSelect()}
    >
      <Icon name={props.icon} /> {props.children}
    </DropdownMenu.Item>
  );
}

/** An item that is a link, with its icon and text in it. */
export function MenuLink({ children }: { children: ReactElement }) {
  return (
    <DropdownMenu.Item className={style.item} asChild>
      {children}
    </DropdownMenu.Item>
  );
}

export function MenuLine() {
  return <DropdownMenu.Separator className={style.line} />;
}

export function MenuLabel({ children }: { children: ReactNode }) {
  return <DropdownMenu.Label className={style.label}>{children}</DropdownMenu.Label>;
}

/** Items of which one is chosen. */
export function MenuChoice<Value extends string>(props: {
  value: Value;
  onChange: (value: Value) => void;
  options: Record<Value, string>;
}) {
  return (
    <DropdownMenu.RadioGroup value={props.value} onValueChange={(value) => props.onChange(value as Value)}>
      {(Object.keys(props.options) as Value[]).map((name) => (
        <DropdownMenu.RadioItem key={name} value={name} className={style.item}>
          <span className={style.mark}>
            <DropdownMenu.ItemIndicator>
              <Icon name="check" />
            </DropdownMenu.ItemIndicator>
          </span>
          {props.options[name]}
        </DropdownMenu.RadioItem>
      ))}
    </DropdownMenu.RadioGroup>
  );
}
