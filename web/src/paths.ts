/** The address of every page. `api/routes/pages.py` answers these with the app. */
export const paths = {
  projects: () => "/",
  newIdea: () => "/new",
  project: (id: string) => `/projects/${encodeURIComponent(id)}`,
  editProject: (id: string) => `/projects/${encodeURIComponent(id)}/edit`,
  build: (id: string, event?: number) => `/builds/${encodeURIComponent(id)}${event === undefined ? "" : `#e${event}`}`,
  /** A build's page with one of its tabs open. */
  buildTab: (id: string, tab: string) => `/builds/${encodeURIComponent(id)}?${new URLSearchParams({ tab })}`,
  /** The operators' pages. `query` has the filter of the list of builds. */
  fleet: (query = "") => `/fleet${query === "" ? "" : `?${query}`}`,
  fleetStuck: () => "/fleet/stuck",
  fleetSpend: () => "/fleet/spend",
  fleetControls: () => "/fleet/controls",
  fleetBuild: (id: string) => `/fleet/builds/${encodeURIComponent(id)}`,
  fleetUser: (id: string) => `/fleet/users/${encodeURIComponent(id)}`,
  usage: () => "/usage",
  account: () => "/account",
  /** What became of an account that was deleted; for someone who can't sign in any more. */
  deleted: (erasure: string) => `/deleted/${encodeURIComponent(erasure)}`,
  /** The page with which the API signs a browser in; not part of the app. It comes back to `to`. */
  signIn: (to: string) => `/sign-in#${new URLSearchParams({ to })}`,
  apiDocs: () => "/docs",
  exportFile: (id: string) => `/v1/exports/${encodeURIComponent(id)}/file`,
};
