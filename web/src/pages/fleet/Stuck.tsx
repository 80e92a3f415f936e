export function Stuck() {
  return null;
}
