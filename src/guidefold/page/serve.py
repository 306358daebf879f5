"""The page itself, served to this machine alone; NiceGUI is loaded when it is asked for."""

import socket
from importlib.util import find_spec
from typing import Any

from guidefold.errors import GuidefoldError, InputError
from guidefold.evaluation.figures import LABELS
from guidefold.evaluation.results import Variant
from guidefold.page.workbench import AMPLIFIED, Comparison, Shot, Workbench, quietly
from guidefold.texts import reason
from guidefold.ui import duration

HOST = "127.0.0.1"
PORTS = 2**16
STYLE = """
body { background: #fbfbfa; color: #1c1f23; }
.q-card { box-shadow: none; border: 1px solid #dfe2e6; border-radius: .5rem; }
.faint { color: #5f6670; font-size: .875rem; }
.shown { width: 100%; border-radius: .25rem; image-rendering: pixelated; }
.three { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 11rem), 1fr)); }
.strip { display: grid; gap: .25rem; grid-template-columns: 4.5rem repeat(5, minmax(0, 1fr)); align-items: center; }
"""


def check_installed() -> None:
    """Raise InputError unless NiceGUI is installed."""
    if find_spec("nicegui") is None:
        raise InputError("guidefold ui needs nicegui; pip install 'guidefold[ui]'")


def check_port(port: int) -> None:
    """Raise InputError where a port cannot be listened at."""
    if port >= PORTS:
        raise InputError(f"port is {port}; give less than {PORTS}")
    try:
        with socket.create_server((HOST, port)):
            pass
    except OSError as error:
        raise InputError(f"cannot listen at port {port} ({reason(error)}); give another --port") from error


def serve(bench: Workbench, title: str, port: int) -> None:
    """Serve the page until it is interrupted."""
    from nicegui import ui

    build(bench, title)
    print(f"look at http://{HOST}:{port} (Ctrl+C ends it)", flush=True)
    ui.run(host=HOST, port=port, title="guidefold", reload=False, show=False, show_welcome_message=False)


def build(bench: Workbench, title: str) -> None:
    """Say what the page looks like; every visitor gets one of their own."""
    from nicegui import ui

    @ui.page("/")
    def page() -> None:
        ui.add_css(STYLE)
        Page(bench, title)


class Page:
    """One visitor's page: what to sample on the left, or above where there is no room, what was sampled beside it."""

    def __init__(self, bench: Workbench, title: str) -> None:
        from nicegui import ui

        self.ui, self.bench = ui, bench
        low, high = bench.scales
        with ui.element("div").classes("w-full max-w-6xl mx-auto p-2"):
            ui.label("Guidance in one forward pass").classes("text-2xl font-semibold")
            ui.label(title).classes("faint")
            with ui.row().classes("w-full items-start mt-4 gap-4"):
                with ui.column().classes("w-full sm:w-64 gap-2"):
                    self.controls(low, high)
                with ui.column().classes("w-full sm:flex-1 sm:w-0 gap-4"):
                    self.results = ui.column().classes("w-full gap-2")
                    self.scales = ui.column().classes("w-full gap-2")
        with self.results:
            ui.label("Press Sample: no guidance, CFG and the adapter start from the same noise.").classes("faint")

    def controls(self, low: float, high: float) -> None:
        ui = self.ui
        self.prompt = ui.textarea("Prompt").props("outlined autogrow dense").classes("w-full")
        self.negative = ui.input("Negative prompt").props("outlined dense").classes("w-full")
        if not self.bench.takes_negative:
            self.negative.disable()
            ui.label("This adapter was trained without negative prompts.").classes("faint")
        middle = round((low + high) / 2, 1)
        shown = ui.label()
        self.scale = ui.slider(min=1, max=high, step=0.1, value=middle).props('aria-label="Guidance scale"')
        shown.bind_text_from(
            self.scale, "value", lambda value: f"Guidance scale {value:g}, trained from {low:g} to {high:g}"
        )
        self.seed = ui.number("Seed", value=0, min=0, precision=0).props("outlined dense").classes("w-full")
        self.button = ui.button("Sample", on_click=self.compare).classes("w-full").props("unelevated no-caps")
        self.further = (
            ui.button("Over all scales", on_click=self.over_scales).classes("w-full").props("outline no-caps")
        )

    async def compare(self) -> None:
        found = await self.run(self.bench.compare, *self.texts(), self.scale.value, self.chosen())
        if found is not None:
            self.results.clear()
            with self.results:
                self.show(found)

    async def over_scales(self) -> None:
        found = await self.run(self.bench.over_scales, *self.texts(), self.chosen())
        if found is not None:
            self.scales.clear()
            with self.scales:
                self.show_scales(found)

    def texts(self) -> tuple[str, str]:
        return self.prompt.value or "", self.negative.value or ""

    def chosen(self) -> int:
        return int(self.seed.value or 0)

    async def run(self, work: Any, *arguments: Any) -> Any:
        """Sample beside the server, with the buttons off; tell what goes wrong in one line."""
        from nicegui import run

        if not (self.prompt.value or "").strip():
            self.ui.notify("Give a prompt.", type="warning")
            return None
        buttons = (self.button, self.further)
        for button in buttons:
            button.props("loading").disable()
        try:
            return await run.io_bound(quietly, work, *arguments)
        except GuidefoldError as error:
            self.ui.notify(str(error), type="negative", multi_line=True)
            return None
        finally:
            for button in buttons:
                button.props(remove="loading").enable()

    def show(self, found: Comparison) -> None:
        ui = self.ui
        with ui.element("div").classes("three w-full"):
            for variant, shot in found.shots.items():
                self.card(LABELS[variant], shot.image, f"{cost(shot)}")
            share = "" if not found.bare_mean else f", {found.mean / found.bare_mean:.0%} of no guidance's"
            detail = f"mean {found.mean:.3f}{share}"
            self.card(f"Adapter less CFG, {AMPLIFIED} times", found.difference, detail)

    def card(self, name: str, image: Any, detail: str) -> None:
        ui = self.ui
        with ui.card().classes("p-2 gap-1"):
            ui.image(image).classes("shown").props(f'alt="{name}" no-spinner no-transition')
            ui.label(name).classes("font-medium")
            ui.label(detail).classes("faint")

    def show_scales(self, found: dict[float, dict[Variant, Shot]]) -> None:
        ui = self.ui
        rows: tuple[Variant, ...] = ("cfg", "adapter")
        with ui.card().classes("w-full p-2"), ui.element("div").classes("strip w-full"):
            ui.label("Scale").classes("faint")
            for scale in found:
                ui.label(f"{scale:g}").classes("faint text-center")
            for variant in rows:
                ui.label(LABELS[variant]).classes("font-medium")
                for scale, shots in found.items():
                    alt = f'alt="{LABELS[variant]} at {scale:g}" no-spinner no-transition'
                    ui.image(shots[variant].image).classes("shown").props(alt)


def cost(shot: Shot) -> str:
    """Return what a picture cost, for people."""
    passes = f"{shot.passes:g} pass{'' if shot.passes == 1 else 'es'} a step"
    return f"{passes}, {duration(shot.seconds)}"
