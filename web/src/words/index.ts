// Every string that a person reads, an object for each page, so that a translation is a matter of this directory.
import { account } from "./account.ts";
import { build } from "./build.ts";
import { feed } from "./feed.ts";
import { newIdea } from "./new-idea.ts";
import { panels } from "./panels.ts";
import { product } from "./product.ts";
import { projects } from "./projects.ts";
import { meter, shared, shell, status } from "./shared.ts";
import { usage } from "./usage.ts";

export const words = { shared, shell, status, meter, projects, newIdea, build, feed, panels, product, usage, account };
