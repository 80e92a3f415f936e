// Signs in with the code in the address's fragment. The fragment reaches no server, and leaves the address bar at once.
"use strict";

const ANOTHER = "Make a new link on the machine where you use Cofounder:";
const COMMAND = "cofounder open";

const fragment = new URLSearchParams(location.hash.slice(1));
history.replaceState(null, "", location.pathname);
const next = ownPath(fragment.get("to"));
const providers = document.getElementById("providers");

/** The path if it is one of this address, else "/". */
function ownPath(path) {
  try {
    const url = new URL(path || "/", location.origin);
    return url.origin === location.origin ? url.pathname + url.search + url.hash : "/";
  } catch {
    return "/";
  }
}

/** Show a title and paragraphs; a paragraph in an array is a command to type. */
function show(title, ...paragraphs) {
  document.getElementById("title").textContent = title;
  document.getElementById("message").replaceChildren(
    ...paragraphs.map((text) => {
      const element = document.createElement(Array.isArray(text) ? "pre" : "p");
      element.textContent = text;
      return element;
    }),
  );
}

function offerToContinue() {
  providers.hidden = true;
  const paragraph = document.getElementById("next");
  paragraph.querySelector("a").href = next;
  paragraph.hidden = false;
}

/** The user who is signed in in this browser, or null. */
async function currentUser() {
  const answer = await fetch("/v1/me");
  return answer.ok ? (await answer.json()).user : null;
}

async function signIn(code) {
  show("Signing you in…");
  const answer = await fetch("/v1/sign-ins", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ code }),
  });
  const body = await answer.json();
  if (answer.ok) {
    show("You are signed in", `You are signed in as ${body.user}.`);
    offerToContinue();
    location.replace(next);
    return;
  }
  const user = await currentUser();
  if (body.reason !== undefined && user !== null) {
    show("You are signed in", `This link does not work any more, but this browser is signed in as ${user}.`);
    offerToContinue();
  } else if (body.reason === "used") {
    show(
      "This link was used before",
      "A sign-in link works only once. If it was not you who used it, sign that browser out:",
      ["cofounder sign-ins list"],
      ANOTHER,
      [COMMAND],
    );
  } else if (body.reason === "expired") {
    show("This link has expired", "A sign-in link works for ten minutes.", ANOTHER, [COMMAND]);
  } else if (body.reason === "unknown") {
    show("This link does not work", "It is incomplete, very old, or of another Cofounder.", ANOTHER, [COMMAND]);
  } else {
    show("You are not signed in", body.detail, "Then open the link again.");
  }
}

async function start() {
  for (const link of providers.querySelectorAll("a")) link.search = new URLSearchParams({ to: next });
  const code = fragment.get("code");
  if (code) {
    await signIn(code);
    return;
  }
  const user = await currentUser();
  if (user !== null) {
    show("You are signed in", `You are signed in as ${user}.`);
    offerToContinue();
  } else if (providers.childElementCount > 0) {
    show("Sign in", "Choose a way below, or open a sign-in link. You make one on the machine where you use Cofounder:", [COMMAND]);
  } else {
    show("Sign in", "Open a sign-in link. You make one on the machine where you use Cofounder:", [COMMAND]);
  }
}

start().catch(() => {
  show("Cofounder does not answer", "Check that it is running, and open the link again.");
});
