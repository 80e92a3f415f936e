import { type ReactNode, useEffect, useState, useSyncExternalStore } from "react";
import { Link, useLocation } from "wouter";
import { onSignedOut } from "../api/client.ts";
import { useAccount, useMe } from "../api/queries.ts";
import { isOperator } from "../api/rights.ts";
import { ButtonLink } from "../parts/Button.tsx";
import { Dialog } from "../parts/Dialog.tsx";
import { Icon } from "../parts/Icon.tsx";
import { MenuButton } from "../parts/MenuButton.tsx";
import { Meter } from "../parts/Meter.tsx";
import { printable } from "../parts/printable.ts";
import { paths } from "../paths.ts";
import { words } from "../words/index.ts";
import style from "./Shell.module.css";

/** Tells the other tabs of this browser that it has signed out. */
const channel = new BroadcastChannel("cofounder-sign-in");

function useOnline(): boolean {
  return useSyncExternalStore(
    (changed) => {
      addEventListener("online", changed);
      addEventListener("offline", changed);
      return () => {
        removeEventListener("online", changed);
        removeEventListener("offline", changed);
      };
    },
    () => navigator.onLine,
  );
}

/** Whether this browser was found to be signed out since the page was loaded. */
function useSignedOut(): boolean {
  const [isSignedOut, setSignedOut] = useState(false);
  useEffect(() => {
    const end = onSignedOut(() => setSignedOut(true));
    const listener = () => setSignedOut(true);
    channel.addEventListener("message", listener);
    return () => {
      end();
      channel.removeEventListener("message", listener);
    };
  }, []);
  return isSignedOut;
}

/** What is around every page: the bar at the top, strips about the connection, and the notice of being signed out. */
export function Shell({ children }: { children: ReactNode }) {
  const isOnline = useOnline();
  const isSignedOut = useSignedOut();
  const [location] = useLocation();
  return (
    <>
      <a href="#main" className={`visually-hidden ${style.skip}`}>
        {words.shell.skip}
      </a>
      <Bar />
      {!isOnline && (
        <p className={style.strip} role="status">
          <Icon name="warning" /> {words.shell.offline}
        </p>
      )}
      <main id="main" tabIndex={-1} className={style.main}>
        {children}
      </main>
      {isSignedOut && (
        <Dialog
          title={words.shell.signedOut}
          onClose={() => undefined}
          actions={
            <ButtonLink kind="main" to={paths.signIn(location + window.location.hash)} outside>
              {words.shell.signIn}
            </ButtonLink>
          }
        >
          <p>{words.shell.signedOutHelp}</p>
        </Dialog>
      )}
    </>
  );
}

function Bar() {
  const me = useMe();
  const account = useAccount();
  return (
    <header className={style.bar}>
      <Link to={paths.projects()} className={style.name}>
        {words.shell.name}
      </Link>
      <nav className={style.links} aria-label={words.shell.menu}>
        <Link to={paths.projects()}>{words.shell.projects}</Link>
        <Link to={paths.usage()}>{words.shell.usage}</Link>
        {isOperator(me.data) && <Link to={paths.fleet()}>{words.shell.fleet}</Link>}
      </nav>
      <span className={style.space} />
      {account.data !== undefined && (
        <Link to={paths.usage()} className={style.meter}>
          <span className="visually-hidden">{words.shell.usage}: </span>
          <Meter budget={account.data.budget} compact />
        </Link>
      )}
      <ButtonLink to={paths.newIdea()} kind="main" small>
        <Icon name="plus" />
        <span className={style.wideOnly}>{words.shell.newIdea}</span>
        <span className={`${style.narrowOnly} visually-hidden`}>{words.shell.newIdea}</span>
      </ButtonLink>
      {me.data !== undefined && <AccountButton user={me.data.name ?? me.data.user} hasFleet={isOperator(me.data)} />}
    </header>
  );
}

function AccountButton({ user, hasFleet }: { user: string; hasFleet: boolean }) {
  return (
    <MenuButton
      label={`${words.shell.account}: ${printable(user)}`}
      className={style.menuButton}
      load={() => import("./AccountMenu.tsx")}
      menu={{ user, hasFleet, onSignedOut: () => channel.postMessage("signed out") }}
    >
      <Icon name="person" />
      <span className={style.wideOnly}>{printable(user)}</span>
    </MenuButton>
  );
}
