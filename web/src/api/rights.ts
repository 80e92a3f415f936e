import type { Schemas } from "./client.ts";

/**
 * Whether the reader may change what belongs to the organisation: its role there, and what its sign-in may do.
 * The API decides; this is what a page offers.
 */
export function mayChange(me: Schemas["MeOut"] | undefined, organisationId: string | undefined): boolean {
  if (me === undefined || organisationId === undefined || !me.scopes.includes("builds:write")) return false;
  return me.organisations.find((each) => each.id === organisationId)?.role !== "viewer";
}

/** Whether the reader sees the operators' pages. For everyone else there are none. */
export function isOperator(me: Schemas["MeOut"] | undefined): boolean {
  return me?.scopes.includes("ops:read") ?? false;
}

/** Whether the reader may act as an operator. */
export function mayOperate(me: Schemas["MeOut"] | undefined): boolean {
  return me?.scopes.includes("ops:write") ?? false;
}
