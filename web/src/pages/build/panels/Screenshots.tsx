import type { Schemas } from "../../../api/client.ts";

export default function Screenshots(_: { build: Schemas["BuildOut"] }) {
  return null;
}
