"""The page in a real browser: typed, chosen and dropped texts, marks, limits, and no other computer."""

import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from tests.serve.conftest import Served

pytestmark = pytest.mark.slow

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

HOSTILE = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">{{value}}${1+1}&amp; "

EXPECTED = "/gradio_api/mcp/schema"
"""The list of endpoints asks here whether Gradio offers them in another protocol. It does not."""

SECONDS = 240_000
"""Milliseconds that the browser waits, on a machine with other work."""


@pytest.fixture(scope="module")
def tab(served: Served) -> Iterator["Tab"]:
    """A tab with the page, which has had no error and asked no other computer when the tests end."""
    if BROWSER is None:
        pytest.skip("needs chromium")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        # A sandbox needs rights that containers lack.
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--no-proxy-server"])
        tab = Tab(browser.new_page(viewport={"width": 1280, "height": 1100}), served.url)
        yield tab
        browser.close()
    assert tab.errors == []
    assert {urlsplit(url).netloc for url in tab.requests} == {urlsplit(served.url).netloc}


class Tab:
    """A tab of the browser, with the requests and errors of its page."""

    def __init__(self, page, url: str) -> None:
        page.set_default_timeout(SECONDS)
        self.page = page
        self.errors = list[str]()
        self.requests = list[str]()
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self.note)
        page.goto(url)

    def note(self, message) -> None:
        """Keep an error of the console, such as a script's, a refused resource, or an answer's status."""
        if message.type == "error" and not message.location["url"].endswith(EXPECTED):
            self.errors.append(f"{message.location['url']}: {message.text}")

    def read(self, text: str) -> None:
        """Type a text and press the button."""
        self.page.get_by_label("Document").fill(text)
        self.page.get_by_role("button", name="Read").click()

    def marked(self, beginning: str) -> str:
        """Wait until the marked text has this beginning; return it with ranks and changes."""
        passage = self.page.locator(".marked", has_text=beginning)
        passage.wait_for()
        return passage.text_content()


def test_rows_arrive_while_the_text_is_read_and_passages_are_marked(tab, tmp_path):
    text = f"typed {HOSTILE}" + "rain and wind, bread and salt. " * 300
    tab.read(text)
    bar = tab.page.locator("#summary progress")
    seen = set[int]()
    while tab.page.locator(".marked").count() == 0:
        seen.update(bar.evaluate_all("bars => bars.map(bar => bar.value)"))
        tab.page.wait_for_timeout(50)
    segments = -(-len(text) // 16)
    assert seen - {segments}, "rows in between"
    marked = tab.marked("typed")
    assert "{{value}}${1+1}&amp;" in marked
    assert tab.page.locator(".marked script, .marked img").count() == 0
    assert tab.page.title() == "rmaat run", "no script of the text ran"
    assert tab.page.locator(".marked mark").count() == 3
    summary = tab.page.locator("#summary").text_content()
    assert f"{segments:,} of {segments:,} segments" in summary
    assert "MiB" in summary
    assert tab.page.locator("#curves polyline").count() > 0
    assert tab.page.locator("#memory polyline").count() == 1
    assert tab.page.locator(".rows tbody tr").count() == 200
    tab.page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 50_000


def test_a_chosen_file_is_read(tab):
    content = "chosen, é\r\n" + "rain " * 20
    tab.page.locator(".drop input").set_input_files(
        [{"name": "a.txt", "mimeType": "text/plain", "buffer": content.encode()}]
    )
    assert "é" in tab.marked("chosen")


def test_a_dropped_file_is_read(tab):
    transfer = tab.page.evaluate_handle(
        """() => {
            const transfer = new DataTransfer();
            transfer.items.add(new File(["dropped " + "bread ".repeat(20)], "b.txt"));
            return transfer;
        }"""
    )
    tab.page.dispatch_event("label.drop", "drop", {"dataTransfer": transfer})
    assert "bread" in tab.marked("dropped")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.txt", b"\xff", "'c.txt': not UTF-8 text"),
        ("<img src=x onerror=alert(1)>.csv", b"a", "<img src=x onerror=alert(1)>.csv' holds records"),
        ("d.txt", b"a" * 40_001, "'d.txt' has more than 40,000 bytes"),
        ("e.txt", b"", "the text is empty"),
    ],
)
def test_mistakes_have_a_message_in_the_page(tab, name, content, message):
    tab.page.locator(".drop input").set_input_files([{"name": name, "mimeType": "a/b", "buffer": content}])
    tab.page.locator(".problem", has_text=message).wait_for()
    assert tab.page.locator(".marked").count() == 0


def test_the_page_of_the_endpoints_opens_without_other_computers(tab):
    tab.page.get_by_role("button", name="Use via API").click()
    tab.page.get_by_text("/stream").first.wait_for()
