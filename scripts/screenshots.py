"""Pictures of every page, light and dark, on a desk and on a phone: `var/screenshots`.

Of the center at OPSCENTER_URL (with OPSCENTER_ADMIN_EMAIL and OPSCENTER_ADMIN_PASSWORD), else of one that is started
for it and does the main job first, so that there is something to see.
"""

import os
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from scripts import crawl, demo, services

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "var/screenshots"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
WIDTHS = {"wide": 1440, "narrow": 360}
SCHEMES = ("light", "dark")
# The main job makes the first pipeline, in a workspace that is remembered from then on.
BEGINNINGS = ("/pipelines/1", "/", "/nowhere", "/admin/")


def main() -> int:
    """0 when every page has its pictures."""
    path = services.find("chromium")
    if not path:
        print("screenshots: chromium is not installed", file=sys.stderr)
        return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        if url := os.environ.get("OPSCENTER_URL"):
            return _of(browser, dict(os.environ) | {"OPSCENTER_URL": url})
        with tempfile.TemporaryDirectory(prefix="opscenter-") as folder:
            port = str(services.free_port())
            os.environ |= {"OPSCENTER_DATA": folder, "PORT": port}
            with demo.center(Path(folder), port):
                environment = demo.job_environment(Path(folder), f"http://127.0.0.1:{port}")
                return demo.do_main_job(environment, stay=False) or _of(browser, environment)


def _of(browser: Browser, environment: dict[str, str]) -> int:
    context = browser.new_context(viewport={"width": WIDTHS["wide"], "height": 900}, reduced_motion="reduce")
    page = context.new_page()
    url = environment["OPSCENTER_URL"].rstrip("/")
    email = environment.get("OPSCENTER_ADMIN_EMAIL", "admin@example.com")
    crawl.log_in(page, url, email, environment["OPSCENTER_ADMIN_PASSWORD"])
    chosen = tuple(sys.argv[1:])
    for address in crawl.pages(page, url, chosen or BEGINNINGS):
        name = crawl.kind_of(address).strip("/").replace("/", "-") or "home"
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            for kind, width in WIDTHS.items():
                page.set_viewport_size({"width": width, "height": 900})
                page.screenshot(path=FOLDER / f"{name}.{scheme}.{kind}.png", full_page=True)
        page.set_viewport_size({"width": WIDTHS["wide"], "height": 900})
        print(address, flush=True)
    context.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
