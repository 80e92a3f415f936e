/** The browser's storage, for what is kept of choices and drafts. It may be full, or forbidden altogether. */

export type Store = Pick<Storage, "getItem" | "setItem" | "removeItem">;

/** A storage that never throws: what the browser does not keep is kept until the page is left. */
export function guarded(storage: () => Store): Store {
  const unkept = new Map<string, string>();
  return {
    getItem(name) {
      const value = unkept.get(name);
      if (value !== undefined) return value;
      try {
        return storage().getItem(name);
      } catch {
        return null;
      }
    },
    setItem(name, value) {
      try {
        storage().setItem(name, value);
        unkept.delete(name);
      } catch {
        unkept.set(name, value);
      }
    },
    removeItem(name) {
      unkept.delete(name);
      try {
        storage().removeItem(name);
      } catch {
        // A browser that stores nothing has nothing to remove.
      }
    },
  };
}

/** `localStorage`: for all tabs, and for good. */
export const browserStorage = guarded(() => localStorage);
/** `sessionStorage`: for this tab. */
export const tabStorage = guarded(() => sessionStorage);
