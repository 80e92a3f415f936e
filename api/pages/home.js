// Shows who is signed in, and the build in the address if there is one.
"use strict";

function show(title, ...paragraphs) {
  document.getElementById("title").textContent = title;
  document.getElementById("message").replaceChildren(
    ...paragraphs.filter(Boolean).map((content) => {
      const element = document.createElement("p");
      element.append(content);
      return element;
    }),
  );
}

/** The paragraphs about the build whose id is in the address. */
async function describeBuild() {
  const [, kind, id] = location.pathname.split("/");
  if (kind !== "builds") return [];
  const answer = await fetch(`/v1/builds/${encodeURIComponent(id)}`);
  const build = await answer.json();
  if (!answer.ok) return [build.detail];
  const paragraphs = [`Build ${build.id} is ${build.status}.`, build.goal];
  if (build.preview_url && /^https?:/.test(build.preview_url)) {
    const link = document.createElement("a");
    link.href = build.preview_url;
    link.rel = "noreferrer";
    link.textContent = "Open its preview";
    paragraphs.push(link);
  }
  return paragraphs;
}

async function signOut() {
  const answer = await fetch("/v1/sign-ins/current", { method: "DELETE" });
  if (answer.ok) {
    location.replace("/sign-in");
  } else {
    show("You are still signed in", (await answer.json()).detail);
  }
}

async function start() {
  document.getElementById("sign-out").addEventListener("click", signOut);
  const answer = await fetch("/v1/me");
  const body = await answer.json();
  if (answer.status === 401) {
    show("You are signed out");
    document.getElementById("signed-out").hidden = false;
  } else if (!answer.ok) {
    show("Cofounder can't answer now", body.detail);
  } else {
    show(`Signed in as ${body.user}`, ...(await describeBuild()));
    document.getElementById("signed-in").hidden = false;
  }
}

start().catch(() => show("Cofounder does not answer", "Check that it is running, and load this page again."));
