// What belongs where on the page of projects. No React, no DOM.
import type { Schemas } from "../../api/client.ts";

type Build = Schemas["BuildOut"];

export interface OpenBuilds {
  /** Wait for a person who can act here: first on the page. */
  needYou: Build[];
  /** All other open builds, also those that sleep or wait. */
  running: Build[];
}

/** The open builds: those that wait for the founder first, the longest waiting first. */
export function openBuilds(builds: Build[]): OpenBuilds {
  const needYou = builds.filter(needsFounder);
  const asked = (build: Build) => build.question?.asked_at ?? build.created_at;
  needYou.sort((one, other) => asked(one).localeCompare(asked(other)));
  return { needYou, running: builds.filter((build) => !needsFounder(build)) };
}

function needsFounder(build: Build): boolean {
  return build.status === "needs_input" && (build.waiting_for === "founder" || build.waiting_for === null);
}

/** The projects whose name has each word of the query, whatever its case and accents. */
export function named<T extends { name: string }>(projects: T[], query: string): T[] {
  const wanted = plain(query).split(/\s+/u).filter(Boolean);
  if (wanted.length === 0) return projects;
  return projects.filter(({ name }) => {
    const text = plain(name);
    return wanted.every((word) => text.includes(word));
  });
}

function plain(text: string): string {
  return text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
}
