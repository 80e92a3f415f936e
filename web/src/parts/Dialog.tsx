import { type ReactNode, useId, useLayoutEffect, useRef } from "react";
import { words } from "../words/index.ts";
import { Button } from "./Button.tsx";
import style from "./Dialog.module.css";
import { Icon } from "./Icon.tsx";

interface Props {
  title: ReactNode;
  onClose: () => void;
  /** Buttons at the end, the main one last. */
  actions?: ReactNode;
  /** A dialog as wide as the window, for pictures. */
  wide?: boolean;
  children: ReactNode;
}

/** A modal dialog, open while it is rendered: the browser's own, with its focus trap and Escape. */
export function Dialog({ title, onClose, actions, wide = false, children }: Props) {
  const ref = useRef<HTMLDialogElement>(null);
  const titleId = useId();
  // Closed while it is still in the page: then the browser gives the focus back to what had it before.
  useLayoutEffect(() => {
    const dialog = ref.current;
    dialog?.showModal();
    return () => dialog?.close();
  }, []);
  return (
    <dialog
      ref={ref}
      className={`${style.dialog} ${wide ? style.wide : ""}`}
      aria-labelledby={titleId}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
    >
      <div className={style.head}>
        <h2 id={titleId}>{title}</h2>
        <Button kind="quiet" onClick={onClose} aria-label={words.shared.close}>
          <Icon name="cross" />
        </Button>
      </div>
      <div className={style.body}>{children}</div>
      {actions !== undefined && <div className={style.actions}>{actions}</div>}
    </dialog>
  );
}
