"""What pipelines make: pictures, films and sounds, as tensors, and how one is shown in a still picture."""

import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from guidefold.capture.run import parameters_of
from guidefold.denoiser import components
from guidefold.errors import ModelError

Kind = Literal["images", "frames", "audios"]

KINDS: dict[Kind, str] = {"images": "an image", "frames": "a film", "audios": "a sound"}
SHOWN_FRAMES = 8  # of a film in its strip
LARGEST_STRIP = 2048  # pixels
FRAMES_A_SECOND = 8.0  # where a pipeline does not tell
WAVE = (480, 96)  # pixels of a sound's picture, each channel
INK = "#3d85d9"


def check_kind(pipe: Any) -> Kind | None:
    """Return what a pipeline makes, as far as its kinds of output tell, or None.

    Raises ModelError where they hold nothing to look at or hear.
    """
    outputs = next(filter(None, map(outputs_beside, type(pipe).__mro__)), [])
    held = {item.name for kind in outputs for item in fields(kind)}
    found = next((kind for kind in get_args(Kind) if kind in held), None)
    if held and found is None:
        raise ModelError(nothing_to_show(pipe, ", ".join(sorted(held))))
    return found


def outputs_beside(kind: type) -> list[Any]:
    """Return the classes of output that a pipeline's module defines or imports."""
    known = [one for one in vars(sys.modules.get(kind.__module__, object)).values() if isinstance(one, type)]
    return [one for one in known if one.__name__.endswith("PipelineOutput") and is_dataclass(one)]


def made_by(pipe: Any, made: Any) -> tuple[Kind, Tensor]:
    """Return what a pipeline made: pictures [N, 3, H, W] or films [N, F, 3, H, W] in 0..1, or sounds [N, C, T].

    Raises ModelError where it made something else.
    """
    kind = next((kind for kind in get_args(Kind) if getattr(made, kind, None) is not None), None)
    found = None if kind is None else as_tensor(getattr(made, kind))
    if kind is None or found is None:
        raise ModelError(nothing_to_show(pipe, type(made).__name__))
    if kind == "audios" and found.dim() == 2:  # some give one channel without a dimension for it
        found = found[:, None]
    if kind == "audios":
        good = found.dim() == 3
    else:
        good = found.dim() == (4 if kind == "images" else 5) and found.shape[-3] == 3
    if not good:
        raise ModelError(nothing_to_show(pipe, f"{kind} of shape {tuple(found.shape)}"))
    return kind, found.float().cpu()


def as_tensor(value: Any) -> Tensor | None:
    """Return tensors and arrays, colours last as arrays have them, as one tensor; None for anything else."""
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], (Tensor, np.ndarray)):
        value = (torch if isinstance(value[0], Tensor) else np).stack(value)
    if isinstance(value, np.ndarray):
        array = torch.from_numpy(value)
        return array.movedim(-1, -3) if array.dim() > 3 else array
    return value if isinstance(value, Tensor) else None


def nothing_to_show(pipe: Any, found: str) -> str:
    """Say that a pipeline makes something else."""
    name = type(pipe).__name__
    return f"{name} makes {found}, not images, films or sounds; sample and eval take pipelines that make one of these"


def sampling_rate(pipe: Any) -> int:
    """Return how many numbers a second of a pipeline's sounds has. Raises ModelError where no part of it tells."""
    # not a feature_extractor's, which is what sounds given to the pipeline are to have
    parts = [part for name, part in components(pipe).items() if name != "feature_extractor"]
    for place in (pipe, *parts, *(getattr(part, "config", None) for part in parts)):
        for name in ("sampling_rate", "sample_rate"):
            rate = getattr(place, name, None)
            if isinstance(rate, (int, float)) and rate > 0:
                return int(rate)
    raise ModelError(f"no part of {type(pipe).__name__} tells the sampling rate of its sounds; give it one that does")


def frames_a_second(pipe: Any, arguments: Mapping[str, Any]) -> float:
    """Return how fast a pipeline's films are to be shown: as its call says, or 8 frames a second."""
    known = parameters_of(pipe)
    for name in ("frame_rate", "fps"):
        rate = arguments.get(name, known[name].default if name in known else None)
        if isinstance(rate, (int, float)) and rate > 0:
            return float(rate)
    return FRAMES_A_SECOND


def to_image(picture: Tensor) -> Image.Image:
    """Turn a picture [3, H, W] in 0..1 into an image."""
    return Image.fromarray((picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())


def still(kind: Kind, one: Tensor) -> Image.Image:
    """Show a picture [3, H, W] as it is, a film [F, 3, H, W] as a strip of frames, a sound [C, T] as its waves."""
    if kind == "images":
        return to_image(one)
    return strip(one) if kind == "frames" else waves(one)


def strip(film: Tensor) -> Image.Image:
    """Lay frames of a film [F, 3, H, W] side by side: all of a short one, else eight from first to last.

    It is for looking at, and no wider than 2048 pixels.
    """
    count = min(len(film), SHOWN_FRAMES)
    chosen = torch.linspace(0, len(film) - 1, count).round().long()
    sheet = to_image(film[chosen].permute(1, 2, 0, 3).flatten(2))
    sheet.thumbnail((LARGEST_STRIP, LARGEST_STRIP))
    return sheet


def waves(sound: Tensor) -> Image.Image:
    """Draw a sound [C, T]: a row for each channel, and in each column how far up and down it goes there."""
    width, height = WAVE
    sheet = Image.new("RGB", (width, height * len(sound)), "white")
    draw, middle = ImageDraw.Draw(sheet), height / 2
    for row, channel in enumerate(sound.clamp(-1, 1)):
        top = row * height
        for column, part in enumerate(torch.tensor_split(channel, width)):
            if len(part):
                high, low = (top + middle - float(value) * (middle - 2) for value in (part.max(), part.min()))
                draw.line((column, high, column, low), fill=INK)
    return sheet
