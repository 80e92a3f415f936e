import { type ReactNode, useState } from "react";
import { Problem } from "../../api/client.ts";
import { Button, type ButtonKind } from "../../parts/Button.tsx";
import { Dialog } from "../../parts/Dialog.tsx";
import { Notice } from "../../parts/Notice.tsx";
import { printable } from "../../parts/printable.ts";

interface Props {
  title: string;
  /** The button that does it. */
  yes: string;
  /** The button that does nothing. */
  no: string;
  kind?: ButtonKind;
  /** Do it; a problem is shown, and the dialog stays. */
  onYes: () => Promise<void>;
  onClose: () => void;
  children: ReactNode;
}

/** A dialog that asks before something is done. */
export function Confirm({ title, yes, no, kind = "main", onYes, onClose, children }: Props) {
  const [busy, setBusy] = useState(false);
  const [trouble, setTrouble] = useState("");

  async function go() {
    setBusy(true);
    setTrouble("");
    try {
      await onYes();
      onClose();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      setTrouble(error.message);
      setBusy(false);
    }
  }

  return (
    <Dialog
      title={printable(title)}
      onClose={onClose}
      actions={
        <>
          <Button onClick={onClose}>{no}</Button>
          <Button kind={kind} busy={busy} onClick={() => void go()}>
            {yes}
          </Button>
        </>
      }
    >
      {children}
      {trouble !== "" && (
        <Notice kind="bad" alert>
          <p>{printable(trouble)}</p>
        </Notice>
      )}
    </Dialog>
  );
}
