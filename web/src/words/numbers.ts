/** Such as "71 KB": rounded up, so that what is too large never looks as if it fits. */
export function kilobytes(bytes: number): string {
  return `${Math.ceil(bytes / 1024)} KB`;
}
