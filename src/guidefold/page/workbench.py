"""What the page does when a button is pressed: sample the variants from one noise, and compare them."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from PIL import Image

from guidefold.capture.run import parameters_of
from guidefold.evaluation.media import still
from guidefold.evaluation.results import VARIANTS, Variant
from guidefold.evaluation.sampling import Sampled, sample
from guidefold.keeping import Adapter

AMPLIFIED = 4  # times that a difference is shown
STRIP = 5  # scales in a strip


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One variant's picture, a film's strip or a sound's waves, and what it cost."""

    image: Image.Image
    passes: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The variants from one noise, and where the adapter differs from CFG: a picture, and the mean of 0..1."""

    shots: dict[Variant, Shot]
    difference: Image.Image
    mean: float
    bare_mean: float  # of no guidance from CFG


class Workbench:
    """A pipeline with its adapter attached; one sampling at a time, whoever asks."""

    def __init__(self, pipe: Any, adapter: Adapter, *, steps: int, call: Mapping[str, Any]) -> None:
        self.pipe, self.adapter, self.steps, self.call = pipe, adapter, steps, dict(call)
        self.lock = Lock()

    @property
    def scales(self) -> tuple[float, float]:
        """The lowest and the highest guidance scale that the adapter was trained at."""
        trained = self.adapter.trained
        return float(trained.get("scale_min", 1.0)), float(trained.get("scale_max", 12.0))

    @property
    def takes_negative(self) -> bool:
        """Whether the adapter reads a negative prompt, so that all variants can have one."""
        return bool(self.adapter.spec.negative) and "negative_prompt" in parameters_of(self.pipe)

    def compare(self, prompt: str, negative: str, scale: float, seed: int) -> Comparison:
        """Sample no guidance, CFG and the adapter. Raises InputError or ModelError."""
        made = {variant: self.sampled(variant, prompt, negative, scale, seed) for variant in VARIANTS}
        none, cfg, student = (made[variant].outputs for variant in VARIANTS)
        apart = (student - cfg).abs()
        shots: dict[Variant, Shot] = {variant: shot_of(made[variant]) for variant in VARIANTS}
        shown = still(made["cfg"].kind, (AMPLIFIED * apart)[0])
        bare_mean = float((none - cfg).abs().mean())
        return Comparison(shots=shots, difference=shown, mean=float(apart.mean()), bare_mean=bare_mean)

    def over_scales(self, prompt: str, negative: str, seed: int) -> dict[float, dict[Variant, Shot]]:
        """Sample CFG and the adapter at scales from the lowest to the highest. Raises InputError or ModelError."""
        low, high = self.scales
        scales = [round(scale, 1) for scale in torch.linspace(low, high, STRIP).tolist()]
        guided: Sequence[Variant] = ("cfg", "adapter")
        return {
            scale: {variant: shot_of(self.sampled(variant, prompt, negative, scale, seed)) for variant in guided}
            for scale in scales
        }

    def sampled(self, variant: Variant, prompt: str, negative: str, scale: float, seed: int) -> Sampled:
        more = {"negative_prompt": [negative]} if negative and self.takes_negative else {}
        with self.lock:
            return sample(
                self.pipe,
                [prompt],
                variant,
                scale,
                steps=self.steps,
                seed=seed,
                adapter=self.adapter,
                **self.call,
                **more,
            )


def shot_of(sampled: Sampled) -> Shot:
    """Return the first of what was sampled, to be looked at."""
    image = still(sampled.kind, sampled.outputs[0])
    return Shot(image=image, passes=sampled.passes, seconds=sampled.seconds)


def quietly(work: Any, *arguments: Any) -> Any:
    """Work without the warnings that a terminal would show, such as of a scale outside the trained range."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return work(*arguments)
