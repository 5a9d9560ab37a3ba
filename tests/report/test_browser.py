"""The book in a browser: every page on light and dark, on a desk and on a phone.

Chromium is the system's (`apt-get install chromium`), Playwright drives it, and axe-core says what those miss who cannot see
or use no mouse. No page asks anything of the network, complains on the console or scrolls sideways.
"""

from __future__ import annotations

import functools
import gzip
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the extra `test`")
axe = pytest.importorskip("axe_playwright_python.base", reason="needs the extra `test`")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]

STATES = (("light", 1400), ("dark", 1400), ("light", 390), ("dark", 390))  # theme, width of the window in px
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
# what is the same on many pages, or down a table, has its colours looked at on these
WHOLE = ("intro.html", "tutorial.html")
REPEATED = [["tr:nth-child(n+3)"], ["pre"], [".sig"], [".bd-sidebar-primary"]]
MOST = 400_000  # bytes of the first page with all that it loads, as a server sends them: compressed


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@dataclass
class Visitor:
    """A browser tab that keeps what goes wrong."""

    page: Any
    home: str
    wrong: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(300_000)  # ms; other tests may run beside this one
        self.page.on("console", self.hear)
        self.page.on("pageerror", lambda error: self.wrong.append(f"script: {error}"))
        self.page.on("request", self.ask)
        self.page.on("response", self.get)

    def hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"console: {message.text}")

    def ask(self, request: Any) -> None:
        if not request.url.startswith((self.home, "data:", "blob:")):
            self.wrong.append(f"asks outside: {request.url}")

    def get(self, response: Any) -> None:
        if response.status >= 400:
            self.wrong.append(f"{response.status}: {response.url}")
        self.loaded.append(response.url)

    def open(self, name: str) -> None:
        self.page.goto(f"{self.home}/{name}", wait_until="load")

    def see(self, theme: str, width: int) -> None:
        self.page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.wait_for_timeout(400)  # the theme waits for the end of resizing before it says what can be scrolled


@pytest.fixture(scope="module")
def home(pages: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(pages)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def visitor(browser: Any, home: str) -> Iterator[Visitor]:
    with browser.new_context() as context:
        yield Visitor(context.new_page(), home)


def violations(page: Any, name: str) -> list[str]:
    """What axe-core finds, one line each: the rule, and what breaks it."""
    all_but = {"runOnly": RULES, "rules": {"color-contrast": {"enabled": False}}}
    colours = {"runOnly": ["color-contrast"]}
    excluded = {"exclude": [] if name in WHOLE else REPEATED}
    found = []
    for context, options in (({"exclude": []}, all_but), (excluded, colours)):
        options |= {"resultTypes": ["violations"], "preload": False}
        found += page.evaluate("given => axe.run(...given)", [{"include": [["html"]], **context}, options])["violations"]
    return [f"{one['id']}: {node['html'][:200]}" for one in found for node in one["nodes"]]


def test_every_page_for_everyone(browser: Any, home: str, pages: Path) -> None:
    """No error, no request outside, no page that scrolls sideways, nothing that breaks WCAG 2.2 A or AA."""
    wrong = []
    names = sorted({*pages.rglob("*.html")} - {pages / "index.html"})
    for name in (path.relative_to(pages).as_posix() for path in names):
        with browser.new_context() as context:
            visitor = Visitor(context.new_page(), home)
            visitor.see(*STATES[0])
            visitor.open(name)
            visitor.page.evaluate(axe.AXE_SCRIPT)
            for theme, width in STATES:
                visitor.see(theme, width)
                visitor.page.wait_for_function(f"document.documentElement.dataset.theme === '{theme}'")
                extra = visitor.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
                visitor.wrong += [f"scrolls sideways by {extra} px"] * (extra > 0)
                visitor.wrong += [f"{theme}, {width} px: {line}" for line in violations(visitor.page, name)]
            wrong += [f"{name}: {line}" for line in visitor.wrong]
    assert len(names) > 30
    assert wrong == [], "\n".join(wrong)


def test_a_violation_is_found(visitor: Visitor) -> None:
    visitor.open("intro.html")
    visitor.page.evaluate(axe.AXE_SCRIPT)
    visitor.page.evaluate("""() => {
        const body = document.body;
        body.innerHTML = '<img src="a.png"><p style="color: #999; background: #fff">faint</p>' + '<button></button>';
        console.error("spoilt"); fetch("http://127.0.0.1:9/outside").catch(() => 0);
    }""")
    found = violations(visitor.page, "intro.html")
    assert {line.split(":")[0] for line in found} == {"image-alt", "color-contrast", "button-name"}
    assert any("spoilt" in line for line in visitor.wrong)
    assert any("asks outside" in line for line in visitor.wrong)
    assert any("a.png" in line for line in visitor.wrong)


def test_the_first_page_is_light(visitor: Visitor, home: str, pages: Path) -> None:
    visitor.see("light", 1400)
    visitor.open("intro.html")
    visitor.page.wait_for_load_state("networkidle")
    files = {url.removeprefix(home).split("?")[0].lstrip("/") for url in visitor.loaded}
    assert {"intro.html", "_images/claims.svg"} <= files
    assert sum(len(gzip.compress((pages / name).read_bytes())) for name in files) < MOST


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_keyboard_shows_where_it_is(visitor: Visitor, theme: str) -> None:
    """Whatever Tab comes to has an outline of its own, and the first thing leads past the menu."""
    visitor.see(theme, 1400)
    visitor.open("intro.html")
    seen = []
    for _ in range(30):
        visitor.page.keyboard.press("Tab")
        seen.append(
            visitor.page.evaluate("""() => {
                const at = document.activeElement;
                const outlined = [at, at.firstElementChild].filter(Boolean).some(one => {
                    const look = getComputedStyle(one);
                    return look.outlineStyle !== "none" && parseFloat(look.outlineWidth) >= 1 || look.boxShadow !== "none";
                });
                return [at.outerHTML.slice(0, 120), outlined];
            }""")
        )
    assert "main-content" in seen[0][0]
    assert [html for html, shown in seen if not shown] == []
    assert len({html for html, _ in seen}) > 15


def test_search_finds_pages_and_tells_them_apart(visitor: Visitor) -> None:
    visitor.open("search.html?q=quantization")
    visitor.page.wait_for_function("document.querySelectorAll('#search-results li').length > 3")
    visitor.page.wait_for_function("/finished|found/i.test(document.querySelector('#search-results').innerText)")
    titles = [item.inner_text() for item in visitor.page.query_selector_all("#search-results li > a")]
    assert len(titles) > 3
    assert len(set(titles)) == len(titles)
    assert visitor.wrong == []


def test_the_explorer_answers_the_keyboard_and_its_link_keeps_the_choice(visitor: Visitor) -> None:
    visitor.open("explore.html")
    page, said = visitor.page, "[data-part=said]"
    told = [page.inner_text(said)]
    pressed = {"select[name=study]": "ArrowDown", "select[name=metric]": "ArrowDown", "input": "ArrowRight"}
    for control, key in pressed.items():
        page.focus(f"#explorer {control}")
        page.keyboard.press(key)
        told.append(page.inner_text(said))
    assert len(set(told)) == len(told)
    assert "linear probing" not in told[-1]  # the radio buttons went from both to the first
    assert page.query_selector_all("[data-part=curve] svg circle")
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    assert page.inner_text(said) == told[-1]
    assert visitor.wrong == []
