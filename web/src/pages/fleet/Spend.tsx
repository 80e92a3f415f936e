export function Spend() {
  return null;
}
