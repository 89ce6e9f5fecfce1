"""The page of a report in a browser: in frame at two widths, in both lights, by keyboard, without a network."""

import json
import shutil
import threading
from contextlib import contextmanager

import pytest
from written_runs import film, measure, paint, update, write_run

from maskrl.report.page import write
from maskrl.report.watching import server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
]
HEALTHY = [update(n, loss=None if n == 7 else 0.0) for n in range(1, 31)]
LONG = "a photograph_of_something_whose_name_is_one_word_and_longer_than_a_telephone_is_wide <script>throw 1</script>"


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: maskrl[test]"
    )
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Write a report of two runs with all that a page can have, the names too long to be comfortable."""
    place = tmp_path_factory.mktemp("browser")
    folders = [
        write_run(place / name, HEALTHY, prompt=LONG)
        for name in ("first", "a_second_run_" + 8 * "with_a_long_name_")
    ]
    for folder in folders:
        paint(folder, "before", "update_00025", "after", "before_after", size=(930, 500))
        film(folder, prompt=LONG)
        for label, guidance in (("beauty", 1.0), ("beauty_" + 40 * "x", 3.0)):
            measure(folder, label, "before", {"beauty": 0.3, "a_long_task_" + 40 * "y": 0.5}, guidance)
            measure(folder, label, "after", {"beauty": 0.5, "a_long_task_" + 40 * "y": 0.4}, guidance)
    write(folders, place / "page.html")
    return place / "page.html"


@pytest.fixture(params=[(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")], ids=str)
def tab(request, chromium, page):
    """Open the page; yield the tab, and what its console and its network have seen."""
    width, light = request.param
    context = chromium.new_context(viewport={"width": width, "height": 844}, color_scheme=light)
    tab = context.new_page()
    seen = []
    tab.on("console", lambda message: seen.append(message.text))
    tab.on("pageerror", lambda error: seen.append(str(error)))
    tab.on(
        "request", lambda request: seen.append(request.url) if not request.url.startswith("data:") else None
    )
    tab.goto(page.as_uri())
    yield tab, seen
    context.close()


def test_it_lies_in_the_frame_asks_for_nothing_and_says_no_error(tab, page):
    tab, seen = tab
    tab.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert seen == [page.as_uri()]
    dark = tab.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(22, 24, 27)" if dark else "rgb(251, 250, 248)")


def test_the_slider_and_the_curves_answer_to_keys(tab):
    tab, _ = tab
    shown = tab.locator("#slides-0 img:not([hidden])")
    slider = tab.locator("#slider-0")
    for _ in range(200):
        tab.keyboard.press("Tab")
        if slider.evaluate("(one) => one === document.activeElement"):
            break
    else:
        pytest.fail("Tab does not lead to the slider")
    tab.keyboard.press("Home")
    assert shown.get_attribute("data-label") == "before training"
    tab.keyboard.press("ArrowRight")
    assert shown.get_attribute("data-label") == "after update 25"
    assert slider.get_attribute("aria-valuetext") == "after update 25"
    chart = tab.locator(".chart").first
    chart.focus()
    tab.keyboard.press("ArrowLeft")
    assert chart.locator("output").inner_text().startswith("update 29:")


COLOURS = """(canvas) => {
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return [...Array(16).keys()].map((i) => {
    const at = 4 * ((5 + 16 * Math.floor(i / 4)) * canvas.width + 5 + 16 * (i % 4));
    return [...pixels.slice(at, at + 4)].join(" ");
  });
}"""


def test_the_film_answers_to_keys_and_shows_each_token_from_its_step_on(tab):
    tab, _ = tab
    slider, tokens = tab.locator("#film-0"), tab.locator("#films-0 canvas.tokens").first
    veil = tab.locator("#films-0 canvas.veil").first
    slider.press("Home")
    (masked,) = set(tokens.evaluate(COLOURS))
    assert set(veil.evaluate(COLOURS)) == {masked}
    slider.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "step 1 of 3"
    there = [token % 3 == 0 for token in range(16)]
    assert [colour != masked for colour in tokens.evaluate(COLOURS)] == there
    assert [colour == "0 0 0 0" for colour in veil.evaluate(COLOURS)] == there
    slider.press("End")
    confident = tokens.evaluate(COLOURS)
    assert masked not in confident
    assert len(set(confident)) == 7
    tab.locator("#films-0 input[type=radio]").first.press("ArrowRight")
    parts = tokens.evaluate(COLOURS)
    assert parts != confident
    assert parts[0] == parts[7] == parts[14]  # p = 1: nothing to learn
    worst = tab.locator("#films-0 canvas.tokens").nth(1).evaluate(COLOURS)
    assert worst[0] == parts[0]
    assert worst[6] != parts[6]


def test_a_page_that_is_watched_follows_the_run_and_keeps_what_one_looks_at(chromium, tmp_path):
    folder = write_run(tmp_path / "run", HEALTHY, planned=40)
    paint(folder, "before", "after")
    with served(folder) as address:
        tab = chromium.new_page()
        tab.goto(address)
        slider = tab.locator("#slider-0")
        slider.press("Home")
        assert "30 of 40 updates are made" in tab.locator("#verdicts").inner_text()
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(update(31)) + "\n")
        tab.locator("#verdicts", has_text="31 of 40 updates are made").wait_for()
        assert slider.input_value() == "0"
        tab.close()


@contextmanager
def served(folder):
    with server(folder, 0) as opened:
        thread = threading.Thread(target=opened.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{opened.server_port}/"
        finally:
            opened.shutdown()
            thread.join()
