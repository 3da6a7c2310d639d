"""A picture of a running operator page: ``python -m tests.page_picture URL FILE [--dark] [--size 1366x768] [--whole]``.

``docs/page.png`` is that of `make demo` a minute after `fusion fault belt_slip`, taken with `make picture`.
"""

import argparse
import shutil

from playwright.sync_api import sync_playwright

SETTLE_MS = 4000


def take(url, file, size=(1600, 1000), dark=False, whole=False):
    """Open the page in headless Chromium, let it draw, and write what is seen as PNG."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        width, height = size
        page = browser.new_page(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", has_touch=width < 600
        )
        page.goto(url)
        page.locator(".head .state").wait_for()
        page.wait_for_timeout(SETTLE_MS)
        page.screenshot(path=file, full_page=whole)
        browser.close()


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="page_picture")
    parser.add_argument("url")
    parser.add_argument("file")
    parser.add_argument("--size", default="1600x1000")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--whole", action="store_true", help="all of the page, also what must be scrolled to")
    said = parser.parse_args()
    take(said.url, said.file, tuple(int(n) for n in said.size.split("x")), said.dark, said.whole)


if __name__ == "__main__":
    main()
