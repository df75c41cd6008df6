"""The browser that the page is tested in: a Chromium of this machine, driven over a pipe."""

import contextlib
import shutil
from urllib.parse import urlparse

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# No sandbox: CI runs as root. The rest: it does nothing but show the page.
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def find():
    """The path of the browser, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def start():
    from playwright.sync_api import sync_playwright  # here: other tests run where it is missing

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find(), headless=True, args=FLAGS)
        yield browser
        browser.close()


@contextlib.contextmanager
def shown_in(tab):
    """Show files in a tab, each as new. None may ask for another address or report an error."""
    troubles, shown, listening = [], [], []

    def note(event, text):
        tab.on(event, text)
        listening.append((event, text))

    def show(path, scheme="light"):
        shown.append(path.as_uri())
        tab.set_viewport_size({"width": 1280, "height": 800})
        tab.emulate_media(media="screen", color_scheme=scheme)
        tab.goto("about:blank")  # from an address with #run= it would stay in the same document
        tab.goto(path.as_uri())
        return tab

    def requested(request):
        if urlparse(request.url).scheme != "data" and request.url not in ("about:blank", *shown):
            troubles.append(f"asked for {request.url}")

    note("console", lambda message: troubles.append(message.text))
    note("pageerror", lambda error: troubles.append(str(error)))
    note("request", requested)
    yield show
    tab.evaluate("localStorage.clear()")
    for event, text in listening:
        tab.remove_listener(event, text)
    assert not troubles
