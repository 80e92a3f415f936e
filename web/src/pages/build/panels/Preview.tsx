import type { Schemas } from "../../../api/client.ts";

export default function Preview(_: { build: Schemas["BuildOut"] }) {
  return null;
}
