export function FleetBuild({ id }: { id: string }) {
  return <p>{id}</p>;
}
