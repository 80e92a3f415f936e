/**
 * The connections that feeds may keep open. Over HTTP/1.1 a browser opens six to one origin, for all of its tabs together,
 * and a request that gets none waits without a word. So a feed keeps its connection only while it has one of three places.
 * The others open theirs for a moment, again and again.
 */

export interface Places {
  /** Take a place. Resolves to what leaves it again, or to null if all are taken. */
  take(): Promise<(() => void) | null>;
  /** Ask the feeds that nobody looks at for their places. */
  want(): void;
  /** Call back when another feed asks for a place. Returns what ends that. */
  onWanted(callback: () => void): () => void;
}

export const PLACES = 3;

const NAME = "cofounder-feed";

/** Hold the lock of this name until the result is called; null if someone else holds it. A closed tab holds none. */
function tryLock(name: string): Promise<(() => void) | null> {
  return new Promise((resolve, reject) => {
    navigator.locks
      .request(name, { ifAvailable: true }, (lock) => {
        if (lock === null) {
          resolve(null);
          return undefined;
        }
        return new Promise<void>((leave) => resolve(leave));
      })
      .catch(reject);
  });
}

/** The places of this browser, which all tabs of this origin share. */
export function browserPlaces(): Places | undefined {
  return hasLocks() ? placesOver(new BroadcastChannel(NAME)) : undefined;
}

/** Only pages of https and of this machine have locks. Others do without places: with few tabs none is missed. */
function hasLocks(): boolean {
  return "locks" in navigator && navigator.locks !== undefined;
}

/** The places, with the channel over which tabs ask each other for one. */
export function placesOver(channel: BroadcastChannel): Places {
  return {
    async take() {
      for (let number = 1; number <= PLACES; number++) {
        const leave = await tryLock(`${NAME}-${number}`);
        if (leave !== null) return leave;
      }
      return null;
    },
    want() {
      channel.postMessage("wanted");
    },
    onWanted(callback) {
      channel.addEventListener("message", callback);
      return () => channel.removeEventListener("message", callback);
    },
  };
}
