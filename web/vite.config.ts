import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

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
    license: { fileName: "THIRD-PARTY.txt" },
  },
  // For work on the pages: `npm run dev` beside `cofounder up`.
  server: {
    host: "127.0.0.1",
    proxy: { "/v1": "http://127.0.0.1:8000", "/sign-in": "http://127.0.0.1:8000", "/pages": "http://127.0.0.1:8000" },
  },
});
