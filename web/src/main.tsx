import "./style/tokens.css";
import "./style/base.css";
import { QueryClientProvider } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { queryClient } from "./api/queries.ts";
import { App } from "./app.tsx";
import { applyTheme } from "./theme.ts";

applyTheme();

const root = document.getElementById("app");
if (root === null) throw new Error("The page has no element #app.");
createRoot(root).render(
  <StrictMode>
    <QueryClientProvider client={queryClient}>
      <App />
    </QueryClientProvider>
  </StrictMode>,
);
