"""A picture of a page, by Chromium and playwright: python reports/picture.py PAGE.html PICTURE.png"""

import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main(page: str, picture: str) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"No browser: one of {', '.join(BROWSERS)} was expected on the PATH.")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        shown = chromium.new_page(viewport={"width": 1200, "height": 1500})
        shown.goto(Path(page).resolve().as_uri())
        shown.screenshot(path=picture)
        chromium.close()
    Image.open(picture).convert("RGB").quantize(128).save(picture, optimize=True)  # a third of the size


if __name__ == "__main__":
    main(*sys.argv[1:])
