"""The page, in a browser that people have: it shows what the server says, and anyone can use it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from served import app_of, on_a_port

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDE, PHONE = {"width": 1200, "height": 900}, {"width": 360, "height": 740}

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(BROWSER is None, reason="no chromium here: on Debian, apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        made = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def where(llm: Any) -> Iterator[str]:
    with on_a_port(app_of(llm)) as url:
        yield url


@pytest.fixture(params=[WIDE, PHONE], ids=["wide", "phone"])
def page(request: Any, browser: Any, where: str) -> Iterator[Any]:
    page = browser.new_page(viewport=request.param)
    wrong: list[str] = []
    page.on(
        "console",
        lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None,
    )
    page.on("pageerror", lambda error: wrong.append(str(error)))
    elsewhere: list[str] = []
    page.on("request", lambda asked: elsewhere.append(asked.url) if not asked.url.startswith(where) else None)
    page.goto(where)
    typed(page, "and th")
    yield page
    page.close()
    assert not wrong and not elsewhere


def typed(page: Any, text: str) -> None:
    page.fill("#text", text)
    page.wait_for_function("text => document.body.dataset.shown === text", arg=text)


def test_it_shows_what_the_server_says(page: Any, where: str) -> None:
    asked = {"prompt": "and th", "unit": "char", "top": 10}
    rows = page.request.post(f"{where}/v1/next", data=asked).json()["next"]
    assert page.locator("#next tbody tr").count() == sum(row["probability"] >= 1e-7 for row in rows)
    shares = page.locator("#beam tbody td:last-child").all_inner_texts()
    assert sum(float(share.split("\u2009")[0]) for share in shares) == pytest.approx(100, abs=2)
    asked = {"prompt": "and th", "temperature": 0, "max_tokens": 12}
    whole = page.request.post(f"{where}/v1/completions", data=asked).json()["choices"][0]["text"]
    assert page.locator("#healed").text_content() == whole
    assert "".join(page.locator("#surprisal span").all_text_contents()) == "and th"
    rows = page.request.post(f"{where}/v1/next", data={"prompt": "and th", "unit": "byte", "top": 10}).json()[
        "next"
    ]
    bytes_shown = sum(row["probability"] >= 1e-7 for row in rows)
    page.check("input[value=byte]")
    page.wait_for_function("n => document.querySelectorAll('#next tbody tr').length === n", arg=bytes_shown)
    page.locator("#surprisal span").nth(1).hover()
    assert page.locator("#figure").inner_text().startswith("n: ")


def test_it_follows_the_cursor(page: Any) -> None:
    page.focus("#text")
    page.keyboard.press("Home")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.body.dataset.shown === 'and'")


def test_keys_alone_do(page: Any) -> None:
    page.focus("#surprisal")
    page.keyboard.press("End")
    assert page.locator("#figure").inner_text().startswith("h: ")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#figure").inner_text().startswith("t: ")
    reached = set()
    page.focus("#model")
    for _ in range(6):
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.name"))
        page.keyboard.press("Tab")
    assert {"model", "text", "unit", "surprisal"} <= reached


def test_everything_has_a_name(page: Any) -> None:
    nameless = page.evaluate(
        """[...document.querySelectorAll("input, select, textarea, table, section")].filter(e =>
             !(e.labels && e.labels.length) && !e.caption && !e.getAttribute("aria-labelledby")).length"""
    )
    assert nameless == 0 and page.evaluate("document.documentElement.lang") == "en"


def test_nothing_is_wider_than_the_screen(page: Any) -> None:
    typed(page, "x" * 90)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_markup_in_a_text_stays_text(page: Any) -> None:
    typed(page, "<img src=x onerror=alert(1)>")
    assert page.locator("main img").count() == 0


CONTRASTS = """() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map((v) => v / 255)
      .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (e) => {
    const colour = getComputedStyle(e).backgroundColor;
    return colour === "rgba(0, 0, 0, 0)" ? ground(e.parentElement) : colour;
  };
  return ["h2", ".quiet", "textarea", "th"].map((s) => document.querySelector("section " + s)).map((e) => {
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_told_from_its_ground(browser: Any, where: str, scheme: str) -> None:
    """By the contrast that WCAG asks of text, 4.5."""
    page = browser.new_page(color_scheme=scheme)
    page.goto(where)
    ratios = page.evaluate(CONTRASTS)
    page.close()
    assert min(ratios) >= 4.5


def test_where_a_key_is_needed_it_asks_for_one(browser: Any, llm: Any) -> None:
    from genlm.bytes.serve import Keys

    with on_a_port(app_of(llm, keys=Keys(["k"]))) as url:
        page = browser.new_page()
        page.goto(url)
        page.fill("#key", "k")
        page.press("#key", "Tab")
        typed(page, "and")
        page.close()
