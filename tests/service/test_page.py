"""The page in a real browser: the whole walk of a merchandiser, by mouse and by keys.

`make test-page` installs the browser. Pictures of the page for the docs are made here: with
`$PAGE_PICTURES` they are written to that folder, and `$PAGE_INDEX` names the index that they show.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from small_index import Shop

from benchmarks.served import Server, serve

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WIDTHS = {400: 860, 900: 900, 1440: 900}
COLOURS = ["color-contrast", "link-in-text-block"]  # axe's rules of them

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: make test-page")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


class Watched:
    """A page of which nothing goes unseen: requests, errors."""

    def __init__(self, browser: sync_api.Browser, server: Server, **options: object) -> None:
        options = {"viewport": {"width": 1440, "height": 900}} | options
        self.context = browser.new_context(base_url=server.url, **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.errors: list[str] = []
        self.asked: list[str] = []
        self.bytes = 0
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("requestfinished", self._count)

    def _count(self, request: sync_api.Request) -> None:
        sizes = request.sizes()
        self.bytes += sizes["responseBodySize"] + sizes["responseHeadersSize"]

    def hits(self) -> list[str]:
        """Sources of the pictures of the hits, once they are there."""
        self.page.wait_for_selector("#results:not([aria-busy]) .card .rank")
        return [one.get_attribute("src") or "" for one in self.page.query_selector_all(".shot img")]

    def state(self) -> dict[str, list[str]]:
        """What the address tells."""
        return parse_qs(urlsplit(self.page.url).query)


@pytest.fixture
def watched(browser: sync_api.Browser, server: Server) -> Iterator[Watched]:
    found = Watched(browser, server)
    yield found
    assert found.errors == []
    own = server.url
    assert [url for url in found.asked if not url.startswith(own)] == []
    found.context.close()


def until(page: sync_api.Page, script: str) -> None:
    """Wait until a script is true; `wait_for_function` would need `eval`, which is forbidden."""
    late = time.monotonic() + 20
    while not page.evaluate(script):
        assert time.monotonic() < late, script
        page.wait_for_timeout(50)


def chip(page: sync_api.Page, name: str) -> sync_api.Locator:
    return page.locator(".chip", has_text=re.compile(f"{name}"))


def test_the_whole_walk(watched: Watched, browser: sync_api.Browser, server: Server) -> None:
    page = watched.page
    page.goto("/")
    page.wait_for_selector(".card")
    page.locator(".shot").first.click()
    first = watched.hits()
    assert len(first) == 12
    assert re.fullmatch("[0-9a-f]{64}", watched.state()["picture"][0])
    chances = page.locator(".attribute", has_text="shape").locator(".chance").all_inner_texts()
    assert all(re.fullmatch(r"\d+ %", text) for text in chances)
    # Wanted, refused, forgotten; what hits have is marked.
    square = chip(page, "square")
    square.click()
    page.wait_for_selector(".marks")
    assert watched.state()["want"] == ["square"]
    square.click()
    page.wait_for_selector(".marks >> text=not square")
    assert watched.state()["not"] == ["square"]
    square.click()
    page.wait_for_selector(".marks", state="detached")
    square.click()
    page.wait_for_selector(".marks")
    # The dial by keys.
    page.locator("#keep").focus()
    page.keyboard.press("Home")
    until(page, "location.search.includes('keep=0')")
    watched.hits()
    # Filters, one of a product, more.
    page.locator(".filter summary", has_text="colour").click()
    page.locator(".filter .check", has_text="blue").click()
    until(page, "location.search.includes('where=colour%3Dblue')")
    until(page, "document.querySelector('#told').textContent.includes('pass')")
    page.locator("#one").check()
    until(page, "location.search.includes('one=1')")
    watched.hits()
    page.wait_for_load_state("networkidle")
    found = watched.hits()
    assert found != first
    # Where the model looked.
    eye = page.locator(".eye").first
    eye.click()
    until(page, "document.querySelector('.shot img').src.includes('/v1/attention/')")
    assert eye.get_attribute("aria-pressed") == "true"
    # A colleague who gets the address sees the same.
    other = Watched(browser, server)
    other.page.goto(page.url)
    assert other.hits() == found
    other.context.close()
    # And back.
    page.go_back()
    until(page, "!location.search.includes('one=1')")


def test_a_picture_of_ones_own(watched: Watched, shop: Shop) -> None:
    page = watched.page
    page.goto("/")
    page.set_input_files("#file", shop.catalogue / "images/007.png")
    watched.hits()
    until(page, "document.querySelector('#picture').naturalWidth > 0")
    page.locator("#clear").click()
    until(page, "location.search === ''")
    until(page, "document.querySelector('#title').textContent === 'The gallery'")


def test_errors_are_told(browser: sync_api.Browser, server: Server, shop: Shop) -> None:
    watched = Watched(browser, server)
    page = watched.page
    page.goto(f"/?picture={'0' * 64}")
    page.wait_for_selector("#trouble >> text=send it again")
    page.set_input_files("#file", shop.catalogue / "broken.jpg")
    page.wait_for_selector("#trouble >> text=the picture")
    watched.context.close()


def test_it_works_by_keys(watched: Watched) -> None:
    """Tab reaches everything in order, Enter does it, and what is pressed keeps the focus."""
    page = watched.page
    page.goto("/")
    page.wait_for_selector("#results:not([aria-busy]) .card")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert "shot" in page.evaluate("document.activeElement.className")
    page.keyboard.press("Enter")
    watched.hits()
    chip(page, "disc").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".marks")
    watched.hits()
    assert "disc" in page.evaluate("document.activeElement.textContent")
    assert "wanted" in page.evaluate("document.activeElement.textContent")


def test_texts_are_only_texts(watched: Watched) -> None:
    """Whatever a catalogue holds; and a script that got in all the same would not run."""
    page = watched.page
    evil = "<img src=x onerror=window.bad=1><script>window.bad=1</script>"

    def with_evil(route: sync_api.Route) -> None:
        answer = route.fetch()
        told = answer.json()
        for hit in told["hits"]:
            hit |= {"payload": {"name": evil, evil: evil}, "known": {evil: [evil]}, "path": evil}
        route.fulfill(response=answer, json=told)

    page.route("**/v1/query", with_evil)
    page.goto("/")
    page.locator(".shot").first.click()
    watched.hits()
    assert evil in page.locator(".headline").first.inner_text()
    blocked = page.evaluate(
        """() => new Promise((done) => {
            addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective));
            const script = document.createElement("script");
            script.textContent = "window.bad = 1";
            document.body.append(script);
        })"""
    )
    assert blocked.startswith("script-src")
    assert page.evaluate("window.bad") is None
    watched.errors.clear()  # that it was blocked


@pytest.mark.parametrize("width", list(WIDTHS))
def test_anybody_can_use_it(browser: sync_api.Browser, server: Server, width: int) -> None:
    """By axe's rules, those of colours in either scheme; it fits the window, and is small."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    size = {"width": width, "height": WIDTHS[width]}
    # axe is put into the page, which its policy forbids.
    watched = Watched(browser, server, viewport=size, bypass_csp=True)
    page = watched.page
    for with_picture in (False, True):
        if with_picture:
            page.locator(".shot").first.click()
            watched.hits()
            if not page.evaluate("document.querySelector('#values-fold').open"):
                page.locator("#values-fold > summary").click()
            chip(page, "square").click()
            page.wait_for_selector(".marks")
            page.locator(".alike").last.click()
            watched.hits()
        else:
            page.goto("/")
            page.wait_for_selector(".card")
        page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
        for scheme, rules in (("light", {}), ("dark", {"runOnly": COLOURS})):
            page.emulate_media(color_scheme=scheme)
            found = axe.run(page, options={"resultTypes": ["violations"], **rules}).response
            assert len(found["passes"]) > (0 if rules else 20)
            assert [
                (one["id"], one["impact"], one["nodes"][0]["html"]) for one in found["violations"]
            ] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert watched.errors == []
    assert watched.bytes < 500_000
    watched.context.close()


@pytest.mark.skipif("PAGE_PICTURES" not in os.environ, reason="of the docs alone")
def test_pictures_of_the_docs(browser: sync_api.Browser, tmp_path: Path) -> None:
    out, index = Path(os.environ["PAGE_PICTURES"]), Path(os.environ["PAGE_INDEX"])
    with serve(index.resolve(), tmp_path / "server") as server:
        for scheme in ("light", "dark"):
            for width, height in WIDTHS.items():
                size = {"width": width, "height": height}
                watched = Watched(browser, server, viewport=size, color_scheme=scheme)
                page = watched.page
                page.goto(f"/?seed={os.environ.get('PAGE_SEED', 0)}")
                page.locator(".shot").first.click()
                watched.hits()
                folded = not page.evaluate("document.querySelector('#values-fold').open")
                if folded:
                    page.locator("#values-fold > summary").click()
                page.locator(".chip:visible").nth(1).click()
                page.wait_for_selector(".marks")
                watched.hits()
                if folded:
                    page.locator("#values-fold > summary").click()
                page.wait_for_load_state("networkidle")
                page.screenshot(path=out / f"page-{width}-{scheme}.jpg", quality=80)
                watched.context.close()
