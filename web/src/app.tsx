import { lazy, Suspense } from "react";
import { Route, Router, Switch } from "wouter";
import { useEncodedLocation, useEncodedSearch } from "./address.ts";
import { Shell } from "./pages/Shell.tsx";
import { Boundary } from "./parts/Boundary.tsx";
import { Skeleton } from "./parts/Skeleton.tsx";
import { words } from "./words/index.ts";

const Projects = lazy(() => import("./pages/projects/Projects.tsx"));
const NewIdea = lazy(() => import("./pages/new-idea/NewIdea.tsx"));
const Project = lazy(() => import("./pages/project/Project.tsx"));
const Build = lazy(() => import("./pages/build/Build.tsx"));
const Usage = lazy(() => import("./pages/usage/Usage.tsx"));
const FleetPages = lazy(() => import("./pages/fleet/FleetPages.tsx"));
const Account = lazy(() => import("./pages/account/Account.tsx"));
const Deleted = lazy(() => import("./pages/account/Deleted.tsx"));
const NotFound = lazy(() => import("./pages/NotFound.tsx"));

/** The pages by their addresses (`paths.ts` builds them). One of them is for someone who can't sign in any more. */
export function App() {
  return (
    <Router hook={useEncodedLocation} searchHook={useEncodedSearch}>
      <Switch>
        <Route path="/deleted/:id">
          {({ id }) => (
            <Boundary>
              <Suspense
                fallback={
                  <main>
                    <Skeleton page={words.shared.loading} />
                  </main>
                }
              >
                <Deleted key={id} id={id} />
              </Suspense>
            </Boundary>
          )}
        </Route>
        <Route>
          <Pages />
        </Route>
      </Switch>
    </Router>
  );
}

function Pages() {
  return (
    <Shell>
      <Boundary>
        <Suspense fallback={<Skeleton page={words.shared.loading} />}>
          <Switch>
            <Route path="/" component={Projects} />
            <Route path="/new">
              <NewIdea />
            </Route>
            <Route path="/projects/:id">{({ id }) => <Project key={id} id={id} />}</Route>
            <Route path="/projects/:id/edit">{({ id }) => <NewIdea key={id} projectId={id} />}</Route>
            <Route path="/builds/:id">{({ id }) => <Build key={id} id={id} />}</Route>
            <Route path="/usage" component={Usage} />
            <Route path="/account" component={Account} />
            <Route path="/fleet/*?" component={FleetPages} />
            <Route component={NotFound} />
          </Switch>
        </Suspense>
      </Boundary>
    </Shell>
  );
}
