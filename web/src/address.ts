import { type BrowserLocationHook, useBrowserLocation, useSearch } from "wouter/use-browser-location";

/** wouter decodes an address and then its parts: a name with a percent sign would be decoded twice. */
const once = (address: string) => address.replaceAll("%", "%25");

/** For wouter's `Router`: the path as the browser has it, so that parts of it are still encoded. */
export const useEncodedLocation: BrowserLocationHook = (options) => {
  const [path, navigate] = useBrowserLocation(options);
  return [once(path), navigate];
};

/** For wouter's `Router`: the query as the browser has it. */
export const useEncodedSearch: typeof useSearch = (options) => once(useSearch(options));
