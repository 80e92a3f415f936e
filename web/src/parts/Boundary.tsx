import { Component, type ErrorInfo, type ReactNode } from "react";
import { words } from "../words/index.ts";
import { Button } from "./Button.tsx";
import { Notice } from "./Notice.tsx";

interface Props {
  children: ReactNode;
  /** What is shown instead, if not the usual notice. */
  fallback?: ReactNode;
}

/** Keeps an error while rendering to the part of the page that has it. */
export class Boundary extends Component<Props, { error: Error | undefined }> {
  override state: { error: Error | undefined } = { error: undefined };

  static getDerivedStateFromError(error: Error) {
    return { error };
  }

  override componentDidCatch(error: Error, info: ErrorInfo) {
    console.error(error, info.componentStack);
  }

  override render() {
    if (this.state.error === undefined) return this.props.children;
    if (this.props.fallback !== undefined) return this.props.fallback;
    // After an update of the server, the parts of an old page are gone.
    const isOldPage = /dynamically imported module|module script|preload CSS/i.test(this.state.error.message);
    return (
      <Notice kind="bad" title={isOldPage ? words.shared.oldPage : words.shared.notShown}>
        <p>{isOldPage ? words.shared.oldPageHelp : words.shared.notShownHelp}</p>
        <Button onClick={() => location.reload()}>{words.shared.reload}</Button>
      </Notice>
    );
  }
}
