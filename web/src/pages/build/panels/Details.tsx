import type { Schemas } from "../../../api/client.ts";

export default function Details(_: { build: Schemas["BuildOut"] }) {
  return null;
}
