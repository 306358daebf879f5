"""Take a picture of the nodes in ComfyUI's own page: `python tools/comfyui_picture.py ADDRESS OUTPUT`.

The address is that of `comfyui_server.py CHECKOUT --keep`. It needs playwright, and Chromium as `--browser`. `--run`
runs the workflow first, so that a node which refuses an adapter is shown as it is then.
"""
# pyright: reportMissingImports=false

import argparse
import sys
from pathlib import Path
from typing import Any

from comfyui_bench import SCALE
from comfyui_server import workflow

PLACES = {
    "1": (90, 150, 190), "2": (90, 300, 280), "3": (410, 150, 290), "4": (410, 330, 290), "5": (740, 150, 280),
    "6": (740, 560, 280),
}  # fmt: skip
SEEN = {"x": 75, "y": 92, "width": 960, "height": 355}  # of the page, at scale 1
LAY_OUT = """places => {
  for (const node of app.graph.nodes) {
    const [x, y, width] = places[node.id]
    node.pos = [x, y]; node.size = [width, node.computeSize()[1]]
  }
  app.canvas.ds.scale = 1; app.canvas.ds.offset = [0, 0]; app.canvas.setDirty(true, true)
}"""


def take(page: Any, address: str, adapter: str, output: Path, run: bool) -> None:
    """Load the workflow into the page, lay it out, and take a picture of its nodes."""
    page.goto(address, timeout=300_000)
    page.wait_for_function("window.app?.vueAppReady && window.app.graph", timeout=300_000)
    page.wait_for_timeout(5_000)
    page.keyboard.press("Escape")  # the templates, which a new user is shown
    page.evaluate("nodes => app.loadApiJson(nodes, 'guidefold')", workflow(adapter, SCALE))
    page.wait_for_timeout(1_000)
    page.evaluate(LAY_OUT, PLACES)
    if run:
        page.evaluate("app.queuePrompt(0)")
        page.wait_for_timeout(30_000)
    page.wait_for_timeout(2_000)
    page.screenshot(path=str(output), clip=None if run else SEEN)


def main() -> int:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("address", help="where the server listens")
    parser.add_argument("output", type=Path, help="PNG file to write")
    parser.add_argument("--adapter", default="sd15-folded", help="which of the server's adapters is chosen")
    parser.add_argument("--run", action="store_true", help="run the workflow, and show the whole page then")
    parser.add_argument("--browser", help="path of Chromium; default: playwright's own")
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.browser, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        take(page, options.address, options.adapter, options.output, options.run)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
