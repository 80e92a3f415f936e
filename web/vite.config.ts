import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

/** What nearly every page uses: in one file, so that a page is a few requests and not twenty. */
const EVERY_PAGE = [
  /node_modules\/(react|react-dom|scheduler|use-sync-external-store|@tanstack\/(react-)?query|@tanstack\/query-core)\//,
  /node_modules\/(wouter|regexparam|openapi-fetch|eventsource-parser)\//,
  /src\/(api|style)\//,
  /src\/(address|app|main|paths|theme)\.ts/,
  /src\/pages\/Shell\./,
  /src\/feed\/(events|stream)\.ts/,
  /src\/words\/(index|shared|numbers)\.ts/,
  /src\/parts\/(Boundary|Button|Confirm|Copy|Dialog|ExternalLink|Failure|Field|Icon|MenuButton|Meter|Notice)\./,
  /src\/parts\/(Picture|Scroll|Skeleton|Status|Time|clock|download|money|printable|size|storage|title|webAddress)\./,
];

// The API serves dist/ under a policy that allows scripts and styles from files of its own origin only: nothing is inlined.
export default defineConfig({
  plugins: [react()],
  build: {
    target: "baseline-widely-available",
    outDir: process.env.WEB_OUT_DIR ?? "dist",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    sourcemap: false,
    reportCompressedSize: false,
    rolldownOptions: {
      output: {
        codeSplitting: {
          includeDependenciesRecursively: false,
          groups: [
            { name: "every-page", test: (id) => EVERY_PAGE.some((part) => part.test(id)) },
            { name: "builds", test: /src\/(pages\/build\/sentence|words\/build)\.ts/ },
            { name: "panels", test: /src\/(pages\/build\/panels\/(Empty|Preview|preview|queries|wrap)|words\/panels)/ },
            { name: "idea", test: /src\/(pages\/new-idea\/(brief|draft|store|useDraft)|words\/new-idea)\.ts/ },
          ],
        },
      },
    },
    license: { fileName: "THIRD-PARTY.txt" },
  },
  // For work on the pages: `npm run dev` beside `cofounder up`.
  server: {
    host: "127.0.0.1",
    proxy: { "/v1": "http://127.0.0.1:8000", "/sign-in": "http://127.0.0.1:8000", "/pages": "http://127.0.0.1:8000" },
  },
});
