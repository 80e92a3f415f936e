// Lets a browser into a preview with the secret of a preview link. The secret comes in the fragment of the address, which
// reaches no server, and is kept for this tab only while the browser is on its way.
"use strict";

const [, , build, step] = location.pathname.split("/");
const KEPT = `preview-link ${build}`;
const preview = document.getElementById("open").href; // before it changes

/** Show a title and paragraphs. */
function show(title, ...paragraphs) {
  document.getElementById("title").textContent = title;
  document.getElementById("message").replaceChildren(
    ...paragraphs.map((text) => {
      const element = document.createElement("p");
      element.textContent = text;
      return element;
    }),
  );
}

/** With the secret to the preview, which sends the browser back here to `enter`. */
function begin() {
  const secret = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
  if (secret) {
    sessionStorage.setItem(KEPT, secret);
  }
  show("Opening the preview…");
  document.getElementById("next").hidden = false;
  location.replace(preview);
}

/** With the secret to a code, and with the code back to the preview. */
async function enter() {
  const secret = sessionStorage.getItem(KEPT);
  sessionStorage.removeItem(KEPT);
  const { user } = document.documentElement.dataset;
  if (!secret && user) {
    show(
      "You can't see this preview",
      `You are signed in as ${user}, who does not work on this product.`,
      "Ask the person who sent you here for a preview link, or to add you to the product's organisation.",
    );
    return;
  }
  if (!secret) {
    show(
      "This preview is private",
      "Is it your product? Sign in, and you come back here.",
      "Has someone sent you a preview link? Open that link again, all of it.",
    );
    const next = document.getElementById("open");
    next.textContent = "Sign in";
    next.href = `/sign-in#${new URLSearchParams({ to: `/previews/${build}` })}`;
    document.getElementById("next").hidden = false;
    return;
  }
  const query = new URLSearchParams(location.search);
  const answer = await fetch(location.pathname, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ secret, state: query.get("state"), to: query.get("to") || "/" }),
  });
  const body = await answer.json();
  if (answer.ok) {
    location.replace(body.location);
  } else {
    show("This link does not work", body.detail);
  }
}

if (step === "enter") {
  enter().catch(() => show("Cofounder does not answer", "Wait a minute, and open the link again."));
} else {
  begin();
}
