import type { Schemas } from "../../../api/client.ts";

export default function Documents(_: { build: Schemas["BuildOut"] }) {
  return null;
}
