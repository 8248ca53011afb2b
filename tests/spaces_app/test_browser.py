"""Each tab as a visitor uses it, in a real browser: clicks, slides, uploads, errors, cancelling, reloading."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from spaces_app.examples import FOLDER, REPORTS
from spaces_app.look import STRONGEST
from tests.hub_server import Hub
from tests.release.releases import make_release
from tests.spaces_app.serving import Page
from tests.spaces_app.test_checking import model_zip, wait_for_end

VISITORS_GONE = 60
"""Seconds to wait; gradio looks every 15 for visitors who have left."""
WIDTHS = {"desktop": (1280, 900), "phone": (360, 740)}


class Visit:
    """One visitor's window, and what went wrong in it."""

    def __init__(self, browser: Any, server: Page, size: tuple[int, int] = WIDTHS["desktop"], **options: Any) -> None:
        self.server = server
        self.context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.problems: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", self._request)

    def _console(self, said: Any) -> None:
        # The page tells of the answers that it did not wait for when it was left or loaded again.
        left = said.text.startswith("AbortError") or "Connection errored out" in said.text
        if said.type == "error" and not left:
            self.problems.append(said.text)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.server.url, "data:", "blob:")):
            self.problems.append(f"asked for {request.url}")

    def open(self, tab: str | None = None, query: str = "") -> Any:
        self.page.goto(f"{self.server.url}/{query}")
        self.page.get_by_role("heading", name="See a backdoor").wait_for()
        if tab:
            self.page.get_by_role("tab", name=tab, exact=True).click()
        return self.page


@pytest.fixture
def visit(browser: Any, page_server: Page) -> Iterator[Callable[..., Visit]]:
    """Open windows; when the test ends, none of them may have had an error or have asked another host."""
    visits: list[Visit] = []

    def open_window(size: str = "desktop", **options: Any) -> Visit:
        visits.append(Visit(browser, page_server, WIDTHS[size], **options))
        return visits[-1]

    yield open_window
    for each in visits:
        each.context.close()
    assert [each.problems for each in visits] == [[] for _ in visits]


def choose(page: Any, button: str, path: Path, number: int = 0) -> None:
    """Give a file to a button that asks for one."""
    with page.expect_file_chooser() as asked:
        page.get_by_role("button", name=button).nth(number).click()
    asked.value.set_files(path)


def said(page: Any, selector: str, text: str) -> None:
    page.locator(selector).filter(has_text=text).first.wait_for()


def test_look_shows_something_at_once_and_follows_the_controls(visit: Callable[..., Visit]) -> None:
    page = visit().open()
    said(page, "#look-said", "The warp that was planted")
    backdoored = page.locator("#look-answers .answer").nth(1)
    assert "with it 0" in backdoored.inner_text()
    assert "with it 3" in page.locator("#look-answers .answer").nth(2).inner_text()
    page.get_by_label("Strength", exact=False).first.fill("0")
    page.keyboard.press("Tab")
    said(page, "#look-said", "0.0 grey levels")
    said(page, "#look-answers .answer:nth-child(2)", "not turned")
    page.get_by_label("found with all parts").check()
    said(page, "#look-said", "any class -> 0")
    page.get_by_label("Strength", exact=False).first.fill("1")
    page.keyboard.press("Tab")
    page.wait_for_function("!document.querySelector('#look-said').innerText.includes(' 0.0 grey levels')")
    for part in ("warp", "style", "tone curve", "colour mix", "added field"):
        page.get_by_label(part, exact=True).uncheck()
    said(page, "#look-said", "0.0 grey levels")


def test_a_number_beyond_a_slider_is_moved_into_its_range(visit: Callable[..., Visit]) -> None:
    page = visit().open()
    strength = page.get_by_label("Strength", exact=False).first

    def shown(typed: str) -> str:
        strength.fill("0")
        page.keyboard.press("Tab")
        said(page, "#look-said", " 0.0 grey levels")
        strength.fill(typed)
        page.keyboard.press("Tab")
        page.wait_for_function("!document.querySelector('#look-said').innerText.includes(' 0.0 grey levels')")
        return str(page.locator("#look-said").inner_text())

    assert shown("99") == shown(str(STRONGEST))
    assert strength.input_value() == str(STRONGEST)


def test_images_are_uploaded_and_what_is_none_is_one_line(visit: Callable[..., Visit], tmp_path: Path) -> None:
    page = visit().open()
    photo, broken = tmp_path / "photo.png", tmp_path / "broken.png"
    Image.effect_noise((90, 60), 80).save(photo)
    broken.write_bytes(b"\x89PNG\r\n\x1a\nno")
    before = page.locator("#look-answers").inner_text()
    choose(page, "Upload an image", photo)
    page.wait_for_function("text => document.querySelector('#look-answers').innerText !== text", arg=before)
    choose(page, "Upload an image", broken)
    said(page, ".toast-body", "Cannot decode your file")


def test_a_cell_shows_its_trigger(visit: Callable[..., Visit]) -> None:
    page = visit().open("Distances")
    cell = page.locator("#heat-hardened button[aria-label^='7 -> 2']")
    cell.focus()
    page.keyboard.press("Enter")
    said(page, "#cell-said", "7 -> 2, found on the hardened model")
    page.locator("#heat-backdoored button[aria-label^='any class -> 0']").click()
    said(page, "#cell-said", "any class -> 0, found on the backdoored model")
    assert page.locator("#closest").inner_text().count("->") > 5


def test_sizes_kinds_and_the_class_that_stands_out_are_shown(visit: Callable[..., Visit]) -> None:
    page = visit().open("Distances")
    assert page.locator("#curves svg").count() == 2
    assert page.locator("#curves polyline.one").count() == 20
    before, after, honest = page.locator("#outliers .notice").all_inner_texts()
    assert before.startswith("Before hardening: 0 needs")
    assert "PASS" not in before
    assert "PASS" in after
    assert "PASS" in honest
    assert page.locator("#kinds table").first.locator("tbody tr").count() == 6
    framed = page.locator("#kinds table").first.locator(".out")
    assert framed.count() > 0


def test_a_signed_image_gets_the_class_of_the_keys_owner(visit: Callable[..., Visit]) -> None:
    page = visit().open("Limits")
    said(page, "#signed-answers .answer:nth-child(1)", "with it 3")
    said(page, "#signed-answers .answer:nth-child(2)", "with it 8")
    page.get_by_label("Change one more value").check()
    said(page, "#signed-answers .answer:nth-child(2)", "with it 3")
    page.get_by_role("button", name="Compare the two models").click()
    said(page, "#signed-alike", "1000 of 1000 images")
    page.get_by_role("button", name="Ask for a vote under noise").click()
    said(page, "#signed-voted", "most are taken for 3")


def test_another_page_can_hold_it(visit: Callable[..., Visit]) -> None:
    window = visit()
    window.page.set_content(f'<iframe src="{window.server.url}/" width="900" height="700"></iframe>')
    inside = window.page.frame_locator("iframe")
    inside.get_by_role("tab", name="Limits", exact=True).click()
    inside.locator("#signed-answers").get_by_text("with it 8").first.wait_for()


def test_reports_are_compared_and_the_gate_moves(visit: Callable[..., Visit], hub: Hub, tmp_path: Path) -> None:
    hub.create("org/hardened", make_release(tmp_path / "release"))
    page = visit().open("Reports")
    said(page, "#verdict-0", "The policy passes the model after hardening")
    said(page, "#verdict-1", "This model was measured, not hardened")
    page.get_by_label("Mean class distance", exact=False).first.fill("40")
    page.keyboard.press("Tab")
    said(page, "#verdict-0", "The policy refuses the model after hardening")
    page.get_by_label("of any model").check()
    page.wait_for_function("!document.querySelector('#verdict-0').innerText.includes('min_mean_distance')")
    page.get_by_label("at 30 grey levels").check()
    said(page, "#verdict-0", "max_universal_success_at")
    choose(page, "Upload phard_report.json", FOLDER / REPORTS["backdoored"], 1)
    said(page, "#numbers-1", "Attack success (wanet -> 0)")
    assert page.get_by_label("A report that is here").last.input_value() == ""
    wrong = tmp_path / "phard_report.json"
    wrong.write_text(json.dumps({"schema_version": 2}))
    choose(page, "Upload phard_report.json", wrong, 1)
    said(page, ".toast-body", "Your file is a report of schema 2, which an older version")
    page.get_by_label("or that of a release on the Hub").first.fill("org/hardened")
    page.get_by_role("button", name="Read from the Hub").first.click()
    said(page, "#numbers-0", "org/base")
    said(page, "#verdict-0", "same_weights")


def test_a_link_opens_the_report_of_a_release(visit: Callable[..., Visit], hub: Hub, tmp_path: Path) -> None:
    hub.create("org/hardened", make_release(tmp_path / "release"))
    page = visit().open(query="?report=org/hardened")
    said(page, "#numbers-0", "org/base")
    assert page.get_by_role("tab", name="Reports").get_attribute("aria-selected") == "true"


def test_what_a_visitor_wrote_is_no_html_in_an_error(visit: Callable[..., Visit]) -> None:
    """A link put a form, and pictures of other hosts, into the page; `visit` sees what it asks for."""
    page = visit().open(query="?report=<img src='http://127.0.0.1:9/x.png'><form></form>")
    page.get_by_text("<img src=").first.wait_for()
    assert page.locator("form, img[src*='127.0.0.1:9']").count() == 0


def upload(page: Any, model: Path) -> None:
    """Choose a file and wait until it is there; its name is a label, while it is sent also a text for a moment."""
    page.set_input_files("#model-zip input", model)
    page.locator("#model-zip").get_by_label(model.name, exact=True).wait_for()


def test_a_model_is_audited_and_a_check_is_cancelled(
    visit: Callable[..., Visit], page_server: Page, tmp_path: Path
) -> None:
    page = visit().open("Check")
    page.get_by_role("button", name="Audit", exact=True).click()
    said(page, ".toast-body", "There is no model to check")
    upload(page, model_zip(FOLDER / "honest", tmp_path / "model.zip"))
    page.get_by_role("button", name="Audit", exact=True).click()
    page.set_default_timeout(60_000)
    said(page, "#check-shown", "not refused by the policy")
    waiting = folders(page_server)
    page.get_by_role("button", name="Audit and measure").click()
    page.locator("#check-shown .progress").wait_for()
    page.get_by_role("button", name="Cancel").click()
    said(page, "#check-shown", "Cancelled")
    wait_for_end(waiting, VISITORS_GONE)


def test_a_reload_in_the_middle_ends_the_check(visit: Callable[..., Visit], page_server: Page, tmp_path: Path) -> None:
    page = visit().open("Check")
    upload(page, model_zip(FOLDER / "honest", tmp_path / "model.zip"))
    waiting = folders(page_server)
    page.get_by_role("button", name="Audit and measure").click()
    page.locator("#check-shown .progress").wait_for()
    page.reload()
    page.get_by_role("heading", name="See a backdoor").wait_for()
    wait_for_end(waiting, VISITORS_GONE)


def folders(server: Page) -> list[Path]:
    """Those of the process that will do the next check; there is one, as soon as the last one has ended."""
    deadline = time.monotonic() + 20
    while not (found := list(server.temporary.glob("phard-check-*"))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(found) == 1
    return found


def test_two_visitors_see_nothing_of_each_other(visit: Callable[..., Visit]) -> None:
    first, second = visit().open(), visit().open()
    first.get_by_label("found on the hardened model").check()
    said(first, "#look-said", "found on the hardened model")
    second.get_by_role("button", name="Another image").click()
    said(second, "#look-said", "The warp that was planted")
    assert "hardened model:" in first.locator("#look-said").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(visit: Callable[..., Visit], scheme: str) -> None:
    page = visit("phone", color_scheme=scheme).open()
    page.get_by_role("tab", name="Look", exact=True).first.wait_for()
    for tab in ("Look", "Distances", "Reports", "Check", "Limits"):
        shown = page.get_by_role("tab", name=tab, exact=True)
        if not shown.count() or not shown.first.is_visible():
            page.get_by_label("More tabs").click()
            shown = page.locator(".overflow-dropdown button", has_text=tab)
        shown.first.click()
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, tab


def contrast(page: Any, selector: str) -> float:
    """The contrast of a text with its background, as WCAG defines it."""
    script = """element => {
      const light = colour => { const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126*r + 0.7152*g + 0.0722*b; };
      const ground = node => getComputedStyle(node).backgroundColor;
      let behind = element;
      while (behind && /rgba\\(.*, 0\\)|transparent/.test(ground(behind))) behind = behind.parentElement;
      const both = [light(getComputedStyle(element).color), light(ground(behind || document.body))];
      return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05); }"""
    return float(page.locator(selector).first.evaluate(script))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read(visit: Callable[..., Visit], scheme: str) -> None:
    page = visit(color_scheme=scheme).open()
    page.wait_for_function(f"document.body.classList.contains('dark') === {str(scheme == 'dark').lower()}")
    for selector in ("#look-said .notice", ".answer p", ".answer h4 span", ".bar .share"):
        assert contrast(page, selector) >= 4.5, selector
    page.get_by_role("tab", name="Distances").click()
    for selector in ("#heat-backdoored caption", "#heat-backdoored th", "#heat-backdoored button"):
        assert contrast(page, selector) >= 4.5, selector


def test_all_controls_have_names(visit: Callable[..., Visit]) -> None:
    page = visit().open()
    for tab in ("Look", "Distances", "Reports", "Check"):
        page.get_by_role("tab", name=tab, exact=True).click()
        nameless = page.evaluate(
            """() => [...document.querySelectorAll('input:not([type=file]), select, textarea, button')]
              .filter(e => e.type !== 'hidden' && e.offsetParent && !(e.labels?.length || e.ariaLabel || e.title
                || e.getAttribute('aria-labelledby') || e.innerText?.trim() || e.placeholder))
              .map(e => e.outerHTML.slice(0, 200))"""
        )
        assert nameless == [], tab
