"""What a pipeline made, in files that people open: PNG, GIF, MP4, WAV; each is written whole or not at all."""

import shutil
import wave
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
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


def makes_mp4() -> bool:
    """Tell whether what diffusers writes MP4 files with is installed."""
    return all(find_spec(name) for name in ("imageio", "imageio_ffmpeg"))


def save_mp4(film: Tensor, path: Path, frames_a_second: float) -> None:
    """Write a film [F, 3, H, W] as an MP4, cut to even sides. Raises InputError where the disk refuses it."""
    from diffusers.utils.export_utils import export_to_video

    height, width = (side - side % 2 for side in film.shape[-2:])  # H.264 has half as many numbers for colours
    frames: list[Any] = [to_image(frame[:, :height, :width]) for frame in film]
    with drafted(path) as draft, TemporaryDirectory() as folder:
        made = Path(folder) / "film.mp4"  # the draft's name tells no format
        export_to_video(frames, str(made), fps=frames_a_second, macro_block_size=2)  # pyright: ignore[reportArgumentType]
        shutil.copyfile(made, draft)


def save_sound(sound: Tensor, path: Path, rate: int) -> None:
    """Write a sound [C, T] as a WAV of 16 bits. Raises InputError where the disk refuses it."""
    numbers = (sound.clamp(-1, 1) * 32767).round().short().T.contiguous().numpy()
    with drafted(path) as draft, wave.open(str(draft), "wb") as file:
        file.setnchannels(len(sound))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(numbers.astype("<i2").tobytes())


def save_made(pipe: Any, kind: Kind, one: Tensor, stem: Path, arguments: Mapping[str, Any]) -> Image.Image:
    """Write a picture, a film's strip, GIF and maybe MP4, or a sound's waves and WAV; return what is to be seen."""
    shown = still(kind, one)
    save_image(shown, stem.with_name(f"{stem.name}.png"))
    if kind == "frames":
        pace = frames_a_second(pipe, arguments)
        save_film(one, stem.with_name(f"{stem.name}.gif"), pace)
        if makes_mp4():
            save_mp4(one, stem.with_name(f"{stem.name}.mp4"), pace)
    elif kind == "audios":
        save_sound(one, stem.with_name(f"{stem.name}.wav"), sampling_rate(pipe))
    return shown
