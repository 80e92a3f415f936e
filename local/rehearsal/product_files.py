"""The product's files at the end of each phase.

The texts are in `product/`. This module has the parts that depend on the brief, and the edits between phases.
"""

import json
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

PORT = 8000
"""Port of the product's server in the sandbox."""

CHECK_COMMAND = "python3 -m unittest discover -v -s tests -t ."
START_COMMAND = "python3 server.py"


@dataclass(frozen=True)
class Edit:
    """Replaces the one occurrence of a text in a file."""

    path: str
    old: str
    new: str


@dataclass(frozen=True)
class Idea:
    """The founder's input that the product is made from."""

    name: str
    problem: str
    features: tuple[str, ...]
    audience: str = ""
    goal: str = ""
    interview: tuple[tuple[str, str], ...] = ()
    news: tuple[str, ...] = field(default=())


MISTAKE = Edit("waitlist.py", "ADDRESS.fullmatch(address)", "ADDRESS.match(address)")
"""The honest mistake of the third phase: `match` accepts an address with anything after it."""

PAGE_EDITS = (
    Edit("server.py", "from urllib.parse import urlsplit\n", "from urllib.parse import urlsplit\n\nimport page\n"),
    Edit(
        "server.py",
        '            self.answer_json(200, {"ok": True})\n        else:\n',
        '            self.answer_json(200, {"ok": True})\n'
        '        elif path == "/":\n'
        "            self.answer_page(200)\n"
        '        elif path == "/static/style.css":\n'
        '            style = (ROOT / "static" / "style.css").read_text(encoding="utf-8")\n'
        '            self.answer(200, "text/css; charset=utf-8", style)\n'
        "        else:\n",
    ),
    Edit(
        "server.py",
        "    def answer_json(self, status, value):\n",
        "    def answer_page(self, status):\n"
        '        self.answer(status, "text/html; charset=utf-8", page.render(page.load_content()))\n'
        "\n"
        "    def answer_json(self, status, value):\n",
    ),
)
"""Edits that make the scaffold's server show the page."""

WAITLIST_EDITS = (
    Edit("server.py", "\nimport page\n", "\nimport page\nimport waitlist\n"),
    Edit(
        "server.py",
        "            self.answer_page(200)\n",
        '            joined = "joined" in urlsplit(self.path).query\n'
        '            self.answer_page(200, "You are on the list. Thank you!" if joined else "")\n',
    ),
    Edit(
        "server.py",
        "    def answer_page(self, status):\n"
        '        self.answer(status, "text/html; charset=utf-8", page.render(page.load_content()))\n',
        "    def do_POST(self):\n"
        '        if urlsplit(self.path).path != "/waitlist":\n'
        '            return self.answer(404, "text/plain; charset=utf-8", "There is nothing here.")\n'
        '        length = min(int(self.headers.get("Content-Length") or 0), LONGEST_BODY)\n'
        "        body = self.rfile.read(length)\n"
        '        if self.headers.get_content_type() == "application/json":\n'
        "            return self.join_as_program(body)\n"
        '        given = parse_qs(body.decode(errors="replace")).get("email", [""])[0]\n'
        "        try:\n"
        "            waitlist.join(given)\n"
        "        except waitlist.NotAnAddress as error:\n"
        "            return self.answer_page(422, str(error))\n"
        '        self.answer(303, "text/plain", "", [("Location", "/?joined#waitlist")])\n'
        "\n"
        "    def join_as_program(self, body):\n"
        "        try:\n"
        "            value = json.loads(body)\n"
        '            given = value.get("email") if isinstance(value, dict) else None\n'
        "            joined = waitlist.join(given if isinstance(given, str) else '')\n"
        "        except ValueError as error:\n"
        '            return self.answer_json(422, {"error": str(error)})\n'
        '        self.answer_json(201 if joined else 200, {"joined": joined, "count": waitlist.count()})\n'
        "\n"
        '    def answer_page(self, status, notice=""):\n'
        "        section = page.waitlist_section(waitlist.count(), notice)\n"
        "        shown = page.render(page.load_content(), waitlist=section)\n"
        '        self.answer(status, "text/html; charset=utf-8", shown)\n',
    ),
    Edit("server.py", "import urlsplit\n", "import parse_qs, urlsplit\n"),
    Edit("server.py", "DEFAULT_PORT = 8000\n", "DEFAULT_PORT = 8000\nLONGEST_BODY = 10_000\n"),
    Edit(
        "page.py",
        "def render(content, **slots):\n",
        "def waitlist_section(waiting, notice):\n"
        '    if waiting == 0:\n        count = "Be the first on the list."\n'
        '    else:\n        count = "One person is waiting." if waiting == 1 else f"{waiting} people are waiting."\n'
        '    template = Template((ROOT / "templates" / "waitlist.html").read_text(encoding="utf-8"))\n'
        '    shown = f\'<p class="notice">{escape(notice)}</p>\' if notice else ""\n'
        "    return template.substitute(notice=shown, count=count)\n"
        "\n\n"
        "def render(content, **slots):\n",
    ),
    Edit("templates/page.html", "    <!-- waitlist -->\n", "$waitlist\n"),
    Edit("templates/page.html", "<!-- action -->", '<a class="button" href="#waitlist">Join the waitlist</a>'),
)
"""Edits that add the waitlist to server and page."""

CHANGES = (
    "A server that says that it is well, with its first test.",
    "The page: name, problem and every feature of the idea, rendered as text whatever it contains.",
    "The waitlist: a form and a JSON endpoint, each address once, kept in SQLite.",
    "Looked at on a desktop and on a phone; the waitlist tried from outside.",
)
"""The changelog entry of each phase."""

SABOTAGES = (
    "check_true",
    "no_tests",
    "serve_500",
    "blank_page",
    "uncommitted_file",
    "ignored_file",
    "left_out_file",
)
"""Ways to spoil the product so that the evidence gate must reject it."""


@cache
def template(name: str) -> str:
    """Return the text of a file in `product/`."""
    return files("local.rehearsal").joinpath("product", name).read_text(encoding="utf-8")


def apply(edit: Edit, contents: dict[str, str]) -> None:
    """Make an edit in `contents`.

    Raises:
        ValueError: the old text does not occur exactly once, so the texts in `product/` do not fit the edits.
    """
    if contents[edit.path].count(edit.old) != 1:
        raise ValueError(
            f"{edit.path} must contain {edit.old!r} exactly once. Correct the edit or the text in product/."
        )
    contents[edit.path] = contents[edit.path].replace(edit.old, edit.new)


def read_idea(brief: Any, interview: Any, goal: str) -> Idea:
    """Return the idea from the prompt's parts. Leaves out what is missing or malformed."""
    brief = brief if isinstance(brief, dict) else {}
    features = brief.get("features")
    audience = brief.get("audience")
    answers = [pair for pair in interview if isinstance(pair, dict)] if isinstance(interview, list) else []
    return Idea(
        name=str(brief.get("name") or "Untitled product"),
        problem=str(brief.get("problem") or ""),
        features=tuple(map(_as_text, features)) if isinstance(features, list) else (),
        audience=audience if isinstance(audience, str) else "",
        goal=goal.strip(),
        interview=tuple((str(pair.get("question", "")), str(pair.get("answer", ""))) for pair in answers),
    )


def _as_text(feature: Any) -> str:
    if isinstance(feature, dict):
        return ": ".join(str(value) for value in feature.values() if isinstance(value, str))
    return str(feature)


def content_json(idea: Idea) -> str:
    """Return the data that the page is rendered from."""
    content: dict[str, Any] = {"name": idea.name, "problem": idea.problem, "features": list(idea.features)}
    if idea.audience:
        content["audience"] = idea.audience
    if idea.news:
        content["news"] = list(idea.news)
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def manifest_json(check: str = CHECK_COMMAND) -> str:
    """Return `cofounder.json`."""
    return json.dumps({"install": "true", "check": check, "start": START_COMMAND, "port": PORT}, indent=2) + "\n"


def readme(idea: Idea, phase: int) -> str:
    """Return README.md at the end of a phase."""
    parts = [f"# {idea.name}", idea.problem]
    if phase >= 2 and idea.features:
        parts.append("## What it does\n" + "\n".join(f"- {feature}" for feature in idea.features))
    if phase >= 3:
        parts.append(
            "## Waitlist\n`POST /waitlist` takes a form field or JSON `email`; JSON answers 201 for a new address, 200 "
            "for a known one and 422 for what is none. Addresses are kept in `data/waitlist.db`, or where "
            "`WAITLIST_DB` points."
        )
    parts.append(
        f"## Run it\nPython 3.11 or later, nothing to install.\n\n    {START_COMMAND}      # http://localhost:{PORT}\n"
        f"    {CHECK_COMMAND}"
    )
    if phase >= 4 and idea.interview:
        answers = "\n".join(f"- {question}\n  {answer}" for question, answer in idea.interview)
        parts.append(f"## What the founder told us\n{answers}")
    return "\n\n".join(part for part in parts if part) + "\n"


def changelog(phase: int) -> str:
    """Return CHANGELOG.md at the end of a phase, newest entry first."""
    return "# Changelog\n\n" + "\n".join(f"- {change}" for change in reversed(CHANGES[:phase])) + "\n"


def plan(idea: Idea, phase: int) -> str:
    """Return PLAN.md at the end of a phase: a checklist of user stories, ticked as far as their check has passed."""
    stories = [(1, "The server says that it is well.", "GET /health answers 200; tests/test_server.py")]
    stories += [
        (2, f"A visitor reads: {' '.join(feature.split())}", "shown on the page at /; tests/test_page.py")
        for feature in idea.features or (idea.name,)
    ]
    stories += [
        (3, "A visitor joins the waitlist, once.", "POST /waitlist answers 201, then 200; tests/test_waitlist.py"),
        (4, "It looks right on a desktop and on a phone.", "screenshots in both widths"),
    ]
    lines = [f"- [{'x' if phase >= done_in else ' '}] {text} (check: {check})" for done_in, text, check in stories]
    lines += [f"- [x] {' '.join(text.split())} (check: on the page, under “What is new”)" for text in idea.news]
    return f"# Plan\n\n{' '.join(idea.name.split())}, story by story.\n\n" + "\n".join(lines) + "\n"


def product(idea: Idea, phase: int) -> dict[str, str]:
    """Return all files at the end of a phase (1 to 4), without any mistake."""
    contents = {
        ".gitignore": template("gitignore.txt"),
        "cofounder.json": manifest_json(),
        "server.py": template("server.py.txt"),
        "tests/__init__.py": "",
        "tests/test_server.py": template("tests/test_server.py.txt"),
    }
    if phase >= 2:
        contents |= {
            "content.json": content_json(idea),
            "page.py": template("page.py.txt"),
            "templates/page.html": template("templates/page.html"),
            "static/style.css": template("static/style.css"),
            "tests/test_page.py": template("tests/test_page.py.txt"),
        }
        for edit in PAGE_EDITS:
            apply(edit, contents)
    if phase >= 3:
        contents |= {
            "waitlist.py": template("waitlist.py.txt"),
            "templates/waitlist.html": template("templates/waitlist.html"),
            "tests/test_waitlist.py": template("tests/test_waitlist.py.txt"),
        }
        for edit in WAITLIST_EDITS:
            apply(edit, contents)
    return contents | {"README.md": readme(idea, phase), "CHANGELOG.md": changelog(phase)}


def sabotaged(contents: dict[str, str], sabotage: str | None) -> dict[str, str]:
    """Return the product with one fault that only the evidence gate can see; see `SABOTAGES`.

    `uncommitted_file` changes nothing here, because its fault is in the commit.
    """
    contents = dict(contents)
    match sabotage:
        case "check_true":
            contents["cofounder.json"] = manifest_json("true")
        case "no_tests":
            contents["cofounder.json"] = manifest_json("python3 -m compileall -q .")
        case "serve_500":
            _before_serving(
                contents, 'Handler.answer_page = lambda self, *args: self.answer(500, "text/plain", "Sorry.")'
            )
        case "blank_page":
            _before_serving(contents, 'page.render = lambda *args, **slots: "<!doctype html><title></title>"')
        case "ignored_file":
            contents[".gitignore"] += "content.json\n"
        case "left_out_file" if "content.json" in contents:
            contents[".gitignore"] += "build/\n"
            contents["build/content.json"] = contents.pop("content.json")
            apply(Edit("page.py", 'ROOT / "content.json"', 'ROOT / "build" / "content.json"'), contents)
        case _:
            pass
    return contents


def _before_serving(contents: dict[str, str], statement: str) -> None:
    """Spoil only the running server: the tests import it and do not run `main`."""
    if "page.py" in contents:
        apply(Edit("server.py", "    make_server(port)", f"    {statement}\n    make_server(port)"), contents)
