"""What a pipeline made, in files that people open: PNG, GIF, WAV; each is written whole or not at all."""

import wave
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from guidefold.evaluation.media import Kind, frames_a_second, sampling_rate, still, to_image
from guidefold.files import replacing, writing


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """Write a file in the draft that is given. Raises InputError where the disk refuses it."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft:
            yield draft


def save_image(image: Image.Image, path: Path) -> None:
    """Write a PNG. Raises InputError where the disk refuses it."""
    with drafted(path) as draft:
        image.save(draft, format="PNG")


def save_film(film: Tensor, path: Path, frames_a_second: float) -> None:
    """Write a film [F, 3, H, W] as a GIF that goes round. Raises InputError where the disk refuses it."""
    first, *rest = (to_image(frame) for frame in film)
    pace = dict(duration=max(20, round(1000 / frames_a_second)), loop=0)  # browsers slow down what is faster
    with drafted(path) as draft:
        first.save(draft, format="GIF", save_all=True, append_images=rest, **pace)


def save_sound(sound: Tensor, path: Path, rate: int) -> None:
    """Write a sound [C, T] as a WAV of 16 bits. Raises InputError where the disk refuses it."""
    numbers = (sound.clamp(-1, 1) * 32767).round().short().T.contiguous().numpy()
    with drafted(path) as draft, wave.open(str(draft), "wb") as file:
        file.setnchannels(len(sound))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(numbers.astype("<i2").tobytes())


def save_made(pipe: Any, kind: Kind, one: Tensor, stem: Path, arguments: Mapping[str, Any]) -> Image.Image:
    """Write a picture, a film's strip and GIF, or a sound's waves and WAV; return what is to be looked at."""
    shown = still(kind, one)
    save_image(shown, stem.with_name(f"{stem.name}.png"))
    if kind == "frames":
        save_film(one, stem.with_name(f"{stem.name}.gif"), frames_a_second(pipe, arguments))
    elif kind == "audios":
        save_sound(one, stem.with_name(f"{stem.name}.wav"), sampling_rate(pipe))
    return shown
