const SHAPES = {
  arrowDown: "M12 5v14M6 13l6 6 6-6",
  arrowUp: "M12 19V5M6 11l6-6 6 6",
  arrowLeft: "M19 12H5M11 6l-6 6 6 6",
  arrowRight: "M5 12h14M13 6l6 6-6 6",
  back: "M9 14L4 9l5-5M4 9h10a6 6 0 0 1 0 12h-3",
  bell: "M6 9a6 6 0 0 1 12 0c0 6 2 7 2 7H4s2-1 2-7M10 20a2 2 0 0 0 4 0",
  camera: "M4 8h3l2-3h6l2 3h3v11H4zM12 16a3 3 0 1 0 0-6 3 3 0 0 0 0 6",
  check: "M5 12.5l4.5 4.5L19 7.5",
  chevron: "M9 6l6 6-6 6",
  clock: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18M12 7v5l3 2",
  code: "M8 7l-5 5 5 5M16 7l5 5-5 5",
  commit: "M12 15.5a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7M3 12h5.5M15.5 12H21",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  cross: "M6 6l12 12M18 6L6 18",
  document: "M6 3h8l4 4v14H6zM14 3v5h4",
  download: "M12 4v11M7 11l5 5 5-5M4 20h16",
  error: "M8 3h8l5 5v8l-5 5H8l-5-5V8zM12 8v5M12 16.5v.2",
  external: "M14 4h6v6M20 4l-9 9M19 14v6H4V5h6",
  file: "M6 3h8l4 4v14H6z",
  folder: "M3 6h6l2 2h10v11H3z",
  gate: "M12 3l9 9-9 9-9-9z",
  info: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18M12 11v5M12 7.8v.2",
  key: "M14 10a5 5 0 1 1-2-4l9 9v4h-4v-3h-3v-3z",
  menu: "M4 7h16M4 12h16M4 17h16",
  message: "M4 5h16v11H10l-5 4v-4H4z",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5",
  more: "M6 12h.1M12 12h.1M18 12h.1",
  panel: "M4 4h16v16H4zM14 4v16",
  person: "M12 11a4 4 0 1 0 0-8 4 4 0 0 0 0 8M4 21a8 8 0 0 1 16 0",
  play: "M7 5l12 7-12 7z",
  plus: "M12 5v14M5 12h14",
  question: "M9 9a3 3 0 1 1 4.5 2.6c-1 .6-1.5 1.2-1.5 2.4M12 17.5v.2M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18",
  queue: "M4 6h16M4 12h10M4 18h6",
  refresh: "M20 11a8 8 0 1 0-2 6M20 5v6h-6",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14M16 16l5 5",
  snapshot: "M5 7l7-4 7 4v10l-7 4-7-4zM5 7l7 4 7-4M12 11v10",
  stop: "M6 6h12v12H6z",
  terminal: "M4 5h16v14H4zM7 10l3 2.5L7 15M12 15h4",
  warning: "M12 4l9 16H3zM12 10v4M12 17v.2",
  work: "M14 6a4 4 0 0 0 5 5l-9 9-4-4 9-9zM5 20l1-1",
} as const;

export type IconName = keyof typeof SHAPES;

/** A drawing of 16 px that stands beside words, never for them; with `label`, where there is no room for words. */
export function Icon({ name, label, size = 16 }: { name: IconName; label?: string; size?: number }) {
  return (
    <svg
      width={size}
      height={size}
      viewBox="0 0 24 24"
      fill="none"
      stroke="currentColor"
      strokeWidth={2}
      strokeLinecap="round"
      strokeLinejoin="round"
      role={label === undefined ? undefined : "img"}
      aria-label={label}
      aria-hidden={label === undefined ? true : undefined}
      focusable="false"
    >
      <path d={SHAPES[name]} />
    </svg>
  );
}
