import { Button } from "../../parts/Button.tsx";
import { Copy } from "../../parts/Copy.tsx";
import { Dialog } from "../../parts/Dialog.tsx";
import { account as accountWords } from "../../words/account.ts";
import style from "./Account.module.css";

/** A secret that is shown only now, until its reader says that it is stored. */
export function Secret({
  title,
  help,
  secret,
  onClose,
}: {
  title: string;
  help: string;
  secret: string;
  onClose: () => void;
}) {
  return (
    <Dialog
      title={title}
      onClose={onClose}
      actions={
        <Button kind="main" onClick={onClose}>
          {accountWords.secretStored}
        </Button>
      }
    >
      <p>{help}</p>
      <p className={style.secret}>
        <code>{secret}</code>
        <Copy text={secret} />
      </p>
    </Dialog>
  );
}
