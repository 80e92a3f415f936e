import type { Schemas } from "../api/client.ts";

const STATES: Record<Schemas["ExportState"], string> = {
  queued: "Begins in a moment",
  writing: "Being written",
  ready: "Ready",
  failed: "Failed",
  expired: "Deleted",
};

export const exports = {
  title: "Exports",
  exportAccount: "Export my data",
  exportProject: "Export this project",
  projectHelp:
    "Briefs, builds, conversations and files as one zip. It is written in the background and kept for a week.",
  states: STATES,
  askedFor: "Asked for",
  size: "Size",
  deleted: "File is deleted",
  download: "Download",
};
