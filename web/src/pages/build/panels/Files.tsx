import type { Schemas } from "../../../api/client.ts";

export default function Files(_: { build: Schemas["BuildOut"] }) {
  return null;
}
