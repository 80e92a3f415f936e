import type { Schemas } from "../../../api/client.ts";

export default function Changes(_: { build: Schemas["BuildOut"] }) {
  return null;
}
