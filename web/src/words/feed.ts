import type { Chip, WorkSummary } from "../feed/rows.ts";

const counted = (count: number, noun: string) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

const CHIPS: Record<Chip, string> = {
  said: "Said",
  commands: "Commands",
  files: "Files",
  failed: "Failed",
  checks: "Checks",
  you: "You",
};

const PREVIEW: Record<string, string> = {
  opening: "The preview starts.",
  open: "The preview is open.",
  closed: "The preview is closed.",
  failed: "The preview did not start.",
};

const SNAPSHOT: Record<string, string> = {
  phase: "at the end of a phase",
  gate: "for the checks",
  sleep: "before sleeping",
  wait: "before waiting for a person",
  replace: "before moving to a new sandbox",
  restored: "after a lost sandbox",
  before_restore: "before going back",
  restore: "after going back",
  end: "at the end",
};

export const feed = {
  title: "Feed",
  what: "What the agent says and does, the newest last",
  mode: "Show",
  modes: { story: "Story", everything: "Everything" },
  filter: "Filter",
  filterHint: "Filter the feed",
  kindsOf: "Kinds",
  clearFilter: "Clear the filter",
  chips: CHIPS,
  empty: "The agent has not begun yet. What it says and does will appear here.",
  noMatch: "Nothing in the feed matches.",
  loadingOlder: "Loading earlier events",
  olderFailed: "These lines could not be loaded.",
  retry: "Try again",
  toEnd: "To the end",
  printedLoaded: (first: number) =>
    `Printed from event ${first.toLocaleString("en")} on. To print earlier ones, scroll up first, so that the page loads them.`,
  printedLast: (rows: number) => `Only the last ${rows.toLocaleString("en")} rows are printed.`,
  newRows: (count: number) => `${count.toLocaleString("en")} new`,
  copyLink: "Copy the address of this event",
  open: "Open",
  close: "Close",

  live: {
    opening: "Loading",
    live: "Live",
    catchingUp: (last: number, newest: number) =>
      `Catching up (${last.toLocaleString("en")} of ${newest.toLocaleString("en")})`,
    reconnecting: (attempt: number, seconds: number) =>
      seconds > 0 ? `Reconnecting, try ${attempt + 1}, in ${seconds} s` : `Reconnecting, try ${attempt + 1}`,
    offline: "Offline",
    paused: "Paused",
    ended: "Ended",
    signedOut: "Signed out",
    notFound: "Not there",
    asOf: (time: string) => `as of ${time}`,
    tryNow: "Try now",
  },

  kinds: {
    said: "The agent",
    work: "Work",
    call: "Tool call",
    gate: "Checks",
    phase: "Phase",
    status: "Status",
    you: "You",
    question: "Question",
    note: "Note",
    warning: "Warning",
  },

  turn: (turn: number) => `Turn ${turn}`,
  work: (work: WorkSummary) => {
    const done = [
      ...(work.files > 0 ? [`${counted(work.files, "file")} changed`] : []),
      ...(work.commands > 0 ? [counted(work.commands, "command")] : []),
    ];
    const others = work.calls === 1 ? "1 step" : `${work.calls} steps`;
    return done.length > 0 ? done.join(", ") : others;
  },
  working: "Working",
  worked: "Worked",
  failed: (count: number) => `${count} failed`,
  seconds: (seconds: number) =>
    seconds < 60 ? `${seconds.toFixed(1)} s` : `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`,

  callState: {
    running: "Running",
    done: "Done",
    failed: "Failed",
    lost: "No result",
  },

  phase: (number: number) => `Phase ${number}`,
  version: (number: number) => `Version ${number} is ready.`,
  modelChosen: (label: string) => `Model: ${label}`,
  restored: (target: string, keptAs: number | null) =>
    `The workspace is put back to ${target}.${keptAs === null ? "" : ` What was there before is snapshot ${keptAs}.`}`,
  restoreAsked: (target: string) => `You asked to go back to ${target}.`,
  restoreFailed: "The workspace could not be put back. It is as it was.",
  snapshotTarget: (number: number) => `snapshot ${number}`,
  commitTarget: (commit: string) => `commit ${commit.slice(0, 7)}`,
  snapshot: (number: number, reason: string, files: number) =>
    `The work is saved as snapshot ${number} (${SNAPSHOT[reason] ?? reason}, ${counted(files, "file")}).`,
  snapshotFailed: (number: number) => `Snapshot ${number} could not be saved. The next one makes up for it.`,
  withdrawn: "Interrupted; said again below.",
  turnWithdrawn: (turn: number | null) => `Turn ${turn ?? "?"} was interrupted and starts again.`,
  turnFailed: "The model call failed.",
  turnStarted: (attempt: number) => (attempt > 1 ? `The model is called, attempt ${attempt}.` : "The model is called."),
  turnAnswered: (tokens: string, calls: number) => `The model has answered: ${tokens}, ${counted(calls, "tool call")}.`,
  tokens: (count: number, kind: string) => `${count.toLocaleString("en")} ${kind}`,
  tokenKinds: {
    input: "tokens read",
    cache_write_5m: "tokens written to the cache",
    cache_write_1h: "tokens written to the cache for an hour",
    cache_read: "tokens from the cache",
    output: "tokens written",
  } as Record<string, string>,
  resumed: (reason: string, from: string) => `It goes on after ${reason}, from ${from}.`,
  changes: "What has changed in the workspace meanwhile",
  plan: (done: number, all: number) =>
    all === 0
      ? "The agent has ended its turn without a plan."
      : `${done} of ${counted(all, "story").replace("storys", "stories")} of the plan are done.`,
  stillOpen: "Still open",
  preview: (state: string) => PREVIEW[state] ?? `The preview: ${state}`,
  pushed: (commit: string, branch: string, repository: string) =>
    `Pushed ${commit.slice(0, 7)} to ${branch} of ${repository}.`,
  hookFailed: "A step after the build has failed. The build is ready all the same.",
  hostRefused: (host: string) => `The sandbox may not reach ${host}. The agent goes on without it.`,
  compacted: "The conversation was long. The agent goes on from a summary.",
  summary: "The summary",
  unknown: (name: string) => `An event that this page does not know: ${name}`,
  message: "You",
  waits: "waits for the next turn",
  readAt: (turn: number) => `read at turn ${turn}`,
  read: "read",
  takenBack: "taken back before it was read",
  tookBack: (number: number) => `You took message ${number} back.`,
  messagesRead: (count: number) =>
    count === 1 ? "The agent reads your message." : `The agent reads your ${count} messages.`,
  asks: "The agent asks",
  tried: "It tried",
  options: "Answers to choose from",
  goesOn: (option: string) => `It goes on with “${option}” until you answer.`,
  youAnswered: "You answered",
  gateRunning: (number: number) => `The checks run (${number}).`,
  gatePassed: (number: number, tests: number | null) =>
    `The checks passed (${number})${tests === null ? "" : `: ${counted(tests, "test")} ran`}.`,
  gateBounced: (number: number, findings: number) =>
    `The checks found ${findings === 0 ? "something to fix" : counted(findings, "thing").concat(" to fix")} (${number}).`,
  gateStopped: (number: number) => `The checks ended without a result (${number}).`,
  steps: "Steps",
  findings: "To fix",
  judged: (model: string, findings: number, returned: boolean) =>
    findings === 0
      ? `${model} compared it with the brief: nothing that was asked for is missing.`
      : returned
        ? `${model} compared it with the brief. The agent gets what it found:`
        : `${model} compared it with the brief. The agent had these twice, and they are left:`,
  notJudged: (reason: string) => `Not compared with the brief: ${reason}. The other checks decide.`,
  tests: (count: number) => `${counted(count, "test")} ran`,
  status: {
    queued: "The build waits for its start.",
    starting: "The build starts.",
    scaffold: "A sandbox is opened.",
    code: "The agent builds.",
    checks: "The checks begin.",
    sleeping: "The build sleeps.",
    waiting: "The build waits for a server.",
    needs_input: "The build waits for a person.",
    ready: "The product is ready.",
    failed: "The build has failed.",
    cancelled: "The build was stopped.",
  } as Record<string, string>,
  statusOther: (status: string) => `The status is ${status}.`,

  tool: {
    loading: "Loading the call",
    input: "Input",
    result: "Result",
    running: "It runs. Its result will appear here.",
    lost: "Nobody knows what it did: the sandbox was lost before it had a result.",
    noResult: "It has no result: the build ended before.",
    command: "Command",
    output: "Output",
    noOutput: "It printed nothing.",
    showAll: (lines: number) => `Show all ${lines.toLocaleString("en")} lines`,
    showLess: "Show less",
    exitCode: (code: string) => `exit code ${code}`,
    timedOut: "timed out",
    timeout: (seconds: number) => `at most ${seconds} s`,
    newContent: "Content",
    change: "Change",
    everyPlace: "in every place",
    matches: (count: number) => counted(count, "line"),
    pictures: "Pictures",
    picture: (number: number) => `Picture ${number} of the page`,
    pictureGone: "This picture is no longer kept.",
    copyCommand: "Copy the command",
    copyOutput: "Copy the output",
    copyPath: "Copy the path",
    openFile: "Show the file",
    question: "Question",
    steps: "Steps on the page",
    page: "Page",
    pattern: "Pattern",
    started: "started",
    commit: "commit",
  },
};
