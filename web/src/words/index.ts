// Every string that a person reads is in this directory, an object for each page, so that a translation is a matter of
// these files. Here are the words of every page; a page imports its own from its file, so that no page loads another's.
import { meter, shared, shell, status } from "./shared.ts";

export const words = { shared, shell, status, meter };
