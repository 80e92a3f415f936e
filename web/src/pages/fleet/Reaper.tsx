export function Reaper({ canAct }: { canAct: boolean }) {
  return canAct ? null : null;
}
