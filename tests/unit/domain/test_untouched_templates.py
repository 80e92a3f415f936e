"""First pages that tools bring along, and pages of products that only look like them."""

import pytest

from domain.untouched_templates import template_of

UNTOUCHED = [
    ("Vite", "Vite + React + TS", "Vite + React\ncount is 0\nEdit src/App.tsx and save to test HMR\n\nClick on the …"),
    (
        "Vite",
        "my-app",
        "Get started\nEdit src/App.jsx and save to test HMR\nCount is 0\nDocumentation\nYour questions, answered",
    ),
    ("Vite", "Vite App", "Hello Vite!\ncount is 0\nClick on the Vite logo to learn more"),
    ("Vite", "Vite + Svelte", "Vite + Svelte\ncount is 0\nClick on the Vite and Svelte logos to learn more"),
    ("Vite", "Vite + Vue", "Vite + Vue\ncount is 0\nEdit components/HelloWorld.vue to test HMR"),
    ("Vite", "Vite + TS", "Vite + TypeScript\ncount is 0\nClick on the Vite and TypeScript logos to learn more"),
    ("Vue", "Vite App", "You did it!\nYou\u2019ve successfully created a project with Vite + Vue 3. What's next?"),
    ("SvelteKit", "", "Welcome to SvelteKit\nVisit svelte.dev/docs/kit to read the documentation"),
    ("Next.js", "Create Next App", "Get started by editing src/app/page.tsx.\nSave and see your changes instantly."),
    ("Next.js", "Create Next App", "To get started, edit the page.tsx file.\nLooking for a starting point?"),
    ("Create React App", "React App", "Edit src/App.js and save to reload.\nLearn React"),
    ("Angular", "App", "Hello, app\nCongratulations! Your app is running. 🎉\nExplore the Docs"),
    (
        "Django",
        "The install worked successfully! Congratulations!",
        "django\nThe install worked successfully! Congratulations!",
    ),
    ("Express", "Express", "Express\nWelcome to Express"),
    ("Rails", "Ruby on Rails 8.0.1", "Rails version: 8.0.1\nRack version: 3.1.8\nRuby version: ruby 3.3.6"),
    ("Rails", "Ruby on Rails", "Yay! You\u2019re on Rails!"),
    (
        "Laravel",
        "Laravel",
        "Let's get started\nLaravel has an incredibly rich ecosystem. We suggest starting with the following.",
    ),
    ("FastAPI's API documentation", "FastAPI - Swagger UI", ""),
    ("FastAPI's API documentation", "Rooms - ReDoc", "Rooms API"),
    (
        "nginx",
        "Welcome to nginx!",
        "Welcome to nginx!\nIf you see this page, the nginx web server is successfully installed",
    ),
    ("Apache", "", "It works!"),
    ("Apache", "Apache2 Debian Default Page: It works", "Apache2 Debian Default Page\nIt works!"),
    ("Caddy", "Caddy works!", "Congratulations! Your web server is working. Caddy is awesome."),
    ("a directory listing", "Directory listing for /", "Directory listing for /\nserver.py"),
    ("a directory listing", "Index of /", "Index of /\n../\nserver.js"),
    ("a directory listing", "listing directory /", "~ / server.js"),
    ("a hello-world example", "", "Hello, World!"),
    ("a hello-world example", "", 'pretty-print {"message":"Hello World"}'),
    ("a hello-world example", "", '{"Hello":"World"}'),
]

PRODUCTS = [
    ("Rooms", "Rooms\nBook a desk. Built with Vite + React."),
    ("Learn Next.js", "Learn Next.js\nLesson 1: create a page, then edit it."),
    ("Express Delivery", "Express\nWelcome to Express Delivery, parcels within an hour"),
    ("Index of happiness", "Index of happiness by country"),
    ("Counter", "Water counter\ncount is 0"),
    ("Works", "It works! Our remedy for hiccups"),
    ("World news", "Hello, World!\nToday's headlines"),
    ("", ""),
]


@pytest.mark.parametrize(("name", "title", "text"), UNTOUCHED)
def test_an_untouched_page_is_recognised(name: str, title: str, text: str) -> None:
    assert template_of(title, text) == name


@pytest.mark.parametrize(("title", "text"), PRODUCTS)
def test_a_product_is_none_of_them(title: str, text: str) -> None:
    assert template_of(title, text) is None
