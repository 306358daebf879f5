"""Pictures and prompts in one file, for a machine without npm or renderer: `python teachers/pack.py FILE`.

Put the file into another machine's `--cache` folder as pack.safetensors. To be small (some 22 MB) it holds lossless
WebP, and of drawings that differ in skin tone alone no more than three.
"""

import argparse
import json
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from emoji import Emoji, groups, share

NAME = "pack.safetensors"
MOST_TONES = 3


def kept(emojis: list[Emoji]) -> list[int]:
    """Return indices of at most three pictures of each name and style, the plain one among them."""
    found = []
    for group in groups(emojis):
        ranked = sorted(group, key=lambda i: ("skin tone" in emojis[i].caption, share(emojis[i].caption)))
        found += ranked[:MOST_TONES]
    return sorted(found)


def encoded(picture: Tensor) -> bytes:
    """Return a picture uint8 [3, H, W] as lossless WebP."""
    buffer = BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(buffer, format="WEBP", lossless=True, quality=100, method=6)
    return buffer.getvalue()


def write(emojis: list[Emoji], pixels: Tensor, path: Path) -> None:
    """Write emojis and their pictures uint8 [N, 3, H, W]."""
    chunks = [encoded(picture) for picture in pixels]
    ends = torch.tensor([0, *(len(chunk) for chunk in chunks)]).cumsum(0)
    content = torch.frombuffer(bytearray(b"".join(chunks)), dtype=torch.uint8)
    rows = [{"name": e.name, "style": e.style, "wordings": e.wordings, "split": e.split} for e in emojis]
    save_file({"content": content, "ends": ends}, path, metadata={"emojis": json.dumps(rows)})


def read(path: Path) -> tuple[list[Emoji], Tensor]:
    """Return what `write` was given, without the SVGs."""
    with safe_open(path, "pt") as file:
        rows, content, ends = json.loads(file.metadata()["emojis"]), file.get_tensor("content"), file.get_tensor("ends")
    raw, ends = content.numpy().tobytes(), ends.tolist()
    pictures = [np.asarray(Image.open(BytesIO(raw[a:b])).convert("RGB")) for a, b in pairwise(ends)]
    emojis = [Emoji(**row | {"wordings": tuple(row["wordings"])}, svg="") for row in rows]
    return emojis, torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def main() -> None:
    import data

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--cache", type=Path, default=Path(__file__).parent / "cache")
    args = parser.parse_args()
    emojis, pixels = data.everything(args.cache)
    chosen = kept(emojis)
    write([emojis[i] for i in chosen], pixels[chosen], args.file)


if __name__ == "__main__":
    main()
