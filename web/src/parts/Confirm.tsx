import { useMutation } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { words } from "../words/index.ts";
import { Button } from "./Button.tsx";
import { Dialog } from "./Dialog.tsx";
import { Failure } from "./Failure.tsx";

interface Props {
  title: string;
  /** The button's verb. */
  verb: string;
  /** What the button that changes nothing says. */
  keep?: string;
  /** Does it. The dialog closes when it is done, and shows the error if it fails. */
  act: () => Promise<unknown>;
  onClose: () => void;
  danger?: boolean;
  children: ReactNode;
}

/** Asks before something is done that can't be undone. */
export function Confirm({ title, verb, keep = words.shared.cancel, act, onClose, danger = false, children }: Props) {
  const mutation = useMutation({ mutationFn: act, onSuccess: onClose });
  return (
    <Dialog
      title={title}
      onClose={onClose}
      actions={
        <>
          <Button onClick={onClose}>{keep}</Button>
          <Button kind={danger ? "danger" : "main"} busy={mutation.isPending} onClick={() => mutation.mutate()}>
            {verb}
          </Button>
        </>
      }
    >
      {children}
      {mutation.isError && <Failure error={mutation.error} />}
    </Dialog>
  );
}
