import { useEffect, useState } from "react";
import { words } from "../words/index.ts";
import { Button } from "./Button.tsx";
import { Icon } from "./Icon.tsx";

/** A button that copies a text, and says that it has. */
export function Copy({ text, label = words.shared.copy }: { text: string; label?: string }) {
  const [state, setState] = useState<"idle" | "copied" | "refused">("idle");
  useEffect(() => {
    if (state === "idle") return;
    const timer = setTimeout(() => setState("idle"), 2_000);
    return () => clearTimeout(timer);
  }, [state]);
  const said = state === "copied" ? words.shared.copied : state === "refused" ? words.shared.notCopied : "";
  return (
    <Button
      kind="quiet"
      small
      aria-label={said || label}
      title={label}
      onClick={() => {
        navigator.clipboard.writeText(text).then(
          () => setState("copied"),
          () => setState("refused"),
        );
      }}
    >
      <Icon name={state === "copied" ? "check" : state === "refused" ? "error" : "copy"} />
      <span className="visually-hidden" role="status">
        {said}
      </span>
    </Button>
  );
}
