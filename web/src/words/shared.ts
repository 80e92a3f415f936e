import type { Schemas } from "../api/client.ts";

export const shared = {
  loading: "Loading",
  reload: "Reload",
  retry: "Try again",
  close: "Close",
  cancel: "Cancel",
  copy: "Copy",
  copied: "Copied",
  notCopied: "This browser did not allow it",
  notShown: "This part could not be shown.",
  notShownHelp: "The rest of the page goes on. Reload the page; if it happens again, tell the operators.",
  oldPage: "A new version of the console is there.",
  oldPageHelp: "This page is of an older one. Reload it to go on.",
  notFound: "There is nothing at this address.",
  notFoundHelp: "It may be gone, or it belongs to someone whose projects you do not see.",
  toProjects: "Go to your projects",
  asOf: (time: string) => `What you see is as of ${time}.`,
  again: (seconds: number) => `It is asked again in ${seconds} s.`,
};

export const shell = {
  name: "Cofounder",
  skip: "Skip to the page",
  newIdea: "New idea",
  projects: "Projects",
  usage: "Usage",
  fleet: "Fleet",
  account: "Account",
  menu: "Menu",
  signedInAs: (user: string) => `Signed in as ${user}`,
  signOut: "Sign out",
  signedOut: "You are signed out",
  signedOutHelp: "Nothing on this page is lost. Sign in, and it goes on from here.",
  signIn: "Sign in",
  offline: "You are offline.",
  unreachable: "Cofounder does not answer. What you see may be old; it is asked again every few seconds.",
  theme: "Theme",
  themes: { auto: "Automatic", light: "Light", dark: "Dark" },
  rehearsal:
    "Rehearsal: a built-in model always builds the same kind of product, whatever the idea says. Nothing is paid.",
  apiDocs: "Documentation of the API",
};

export const status: {
  word: Record<Schemas["Status"], string>;
  needs: Record<Schemas["WaitingFor"], string>;
} = {
  word: {
    queued: "In the queue",
    starting: "Getting ready",
    scaffold: "Getting ready",
    code: "Building",
    checks: "Checking",
    ready: "Ready",
    sleeping: "Asleep",
    waiting: "Waiting",
    needs_input: "Needs you",
    failed: "Stopped with an error",
    cancelled: "Stopped",
  },
  needs: {
    founder: "Needs you",
    operator: "Waits for the operators",
    store: "Waits for storage",
    kill_switch: "Paused for everybody",
  },
};

const LEVELS: Record<Schemas["Level"], string> = { green: "", yellow: ", getting low", red: ", nearly used up" };

export const meter = {
  label: "Today's allowance",
  unlimited: "No daily limit",
  used: (percent: number, level: Schemas["Level"]) =>
    percent >= 100
      ? `${percent} % of today's allowance, used up`
      : `${percent} % of today's allowance${LEVELS[level] ?? ""}`,
};
