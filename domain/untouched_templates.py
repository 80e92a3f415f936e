"""Recognises a first page that a generator or a server brought along, by texts that only such pages show.

A library alone is never a sign. To add a page, add a line to `_PAGES` and what it shows to the test.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class _Page:
    """A page that comes with a tool. All patterns that are given must match; upper and lower case are the same."""

    name: str
    text: str = ""
    """A pattern found in the visible text, in which every run of spaces and line ends is one space."""
    whole: str = ""
    """A pattern of the whole visible text."""
    title: str = ""
    """A pattern of the whole title."""


_PAGES = (
    _Page("Vite", text=r"edit \S*\b(app|helloworld|main|counter)\.\w+ (and save )?to test hmr"),
    _Page("Vite", text=r"click on the vite( and [\w.+]+)? logos? to learn more"),
    _Page("Vite", text=r"^(hello vite!|vite \+ \w+).*\bcount is \d+"),
    _Page("Vue", text=r"you did it!.*successfully created a project with vite \+ vue"),
    _Page("SvelteKit", text=r"welcome to (your new )?sveltekit( app)?.*to read the documentation"),
    _Page("Next.js", text=r"get started by editing \S*\b(app/page|pages/index)\.\w+"),
    _Page("Next.js", text=r"to get started, edit the page\.\w+ file"),
    _Page("Create React App", text=r"edit src/app\.\w+ and save to reload"),
    _Page("Angular", text=r"congratulations! your app is running|app is running!.*here are some links to help"),
    _Page(
        "Nuxt", text=r"remove this welcome page by (replacing|removing)|^welcome to nuxt!?.*(get started|documentation)"
    ),
    _Page("Astro", text=r"to get started, open the (<code>)?src/pages|^astro .*welcome to astro"),
    _Page("React Router", text=r"^what.s next\? react router docs join discord$"),
    _Page("SolidStart", text=r"visit start\.solidjs\.com to learn how to build"),
    _Page("Preact", text=r"get started building vite-powered preact apps"),
    _Page("Gatsby", text=r"you just made a gatsby site"),
    _Page("Expo", text=r"open up \S*(app|index)\.\w+ to start working on your app"),
    _Page("Fresh", text=r"try updating this message in the \S+ file, and refresh"),
    _Page("Django", text=r"the install worked successfully! congratulations!"),
    _Page("Express", whole=r"express welcome to express", title="express"),
    _Page("Rails", text=r"^(rails version: \S+.*ruby version: |yay! you.re on rails!)"),
    _Page("Laravel", text=r"laravel has (wonderful documentation covering|an incredibly rich ecosystem)"),
    _Page("Phoenix", text=r"peace of mind from prototype to production", title=r".*phoenix framework.*"),
    _Page("ASP.NET", text=r"learn about building web apps with asp\.net core"),
    _Page("FastAPI's API documentation", title=r".* - (swagger ui|redoc)"),
    _Page("nginx", text=r"the nginx web server is successfully installed|^welcome to nginx!"),
    _Page("Apache", text=r"apache2 (\w+ )?default page"),
    _Page("Apache", whole=r"it works!?"),
    _Page("Caddy", text=r"your web server is working", title=r"caddy works!?"),
    _Page("Tomcat", text=r"you.ve successfully installed tomcat"),
    _Page("PHP", text=r"^php version \d", title=r"php.* - phpinfo\(\)|phpinfo\(\)"),
    _Page("a directory listing", title=r"(directory listing for|index of|listing directory) ~?/.*|files within \S*/"),
    _Page("a directory listing", text=r"^(directory listing for|index of) /"),
    _Page("a hello-world example", whole=r"hello,? (world|there|hono|elysia|from \w+)[!.]?"),
    _Page("a hello-world example", whole=r"(pretty.print )?\{ ?\"\w+\" ?: ?(\"hello,? \w+[!.]?\"|\"world\"|true) ?\}"),
)


def template_of(title: str, text: str) -> str | None:
    """Return what a page comes with if it is an untouched one, such as "Vite"; None if it is not one that is known."""
    title, text = _plain(title), _plain(text)
    return next((page.name for page in _PAGES if _fits(page, title, text)), None)


def _fits(page: _Page, title: str, text: str) -> bool:
    return (
        bool(page.text or page.whole or page.title)
        and (not page.text or re.search(page.text, text) is not None)
        and (not page.whole or re.fullmatch(page.whole, text) is not None)
        and (not page.title or re.fullmatch(page.title, title) is not None)
    )


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("\u2019", "'").lower()
