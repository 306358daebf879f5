"""Emoji pictures with their names: the data that the bundled teacher learned from.

The pictures come from two npm packages: Noto Emoji (Apache-2.0, Google) and Twemoji (CC-BY 4.0, Twitter and
other contributors). Only their names and 64-pixel PNG files are read.
"""

import hashlib
import json
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

PACKAGES = {
    "noto": ("google", "emoji-datasource-google@16.0.0"),
    "twemoji": ("twitter", "emoji-datasource-twitter@16.0.0"),
}
TONES = {"1F3FB": "light", "1F3FC": "medium light", "1F3FD": "medium", "1F3FE": "medium dark", "1F3FF": "dark"}
HELD_OUT = 0.1


@dataclass(frozen=True, kw_only=True)
class Emoji:
    name: str
    caption: str
    path: Path
    held_out: bool


def is_held_out(name: str) -> bool:
    """Tell whether every picture of this name, in both styles and all skin tones, is kept out of training."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 < HELD_OUT


def fetch(cache: Path, style: str) -> Path:
    """Unpack one style's package under `cache` with npm, once; return its folder."""
    folder, package = cache / style, PACKAGES[style][1]
    if not (folder / "package").exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["npm", "pack", "--silent", "--pack-destination", folder, package], check=True, stdout=subprocess.DEVNULL
        )
        wanted = ("package/emoji.json", f"package/img/{PACKAGES[style][0]}/64/")
        with tarfile.open(next(folder.glob("*.tgz"))) as archive:
            members = [m for m in archive.getmembers() if m.name.startswith(wanted)]
            archive.extractall(folder, members=members, filter="data")
    return folder / "package"


def captioned(entry: dict) -> list[tuple[str, str]]:
    """Return (description, file) of an emoji and of its skin-tone variants."""
    name = entry["name"].lower()
    rows = [(name, entry["image"])]
    for code, variant in (entry.get("skin_variations") or {}).items():
        tones = " and ".join(TONES[part] for part in code.split("-"))
        rows.append((f"{name} with {tones} skin tone", variant["image"]))
    return rows


def load(cache: Path) -> list[Emoji]:
    """Return every emoji of both styles, in a fixed order."""
    emojis = []
    for style, (vendor, _) in PACKAGES.items():
        package = fetch(cache, style)
        for entry in json.loads((package / "emoji.json").read_text()):
            if not entry["name"]:
                continue
            for description, file in captioned(entry):
                path = package / "img" / vendor / "64" / file
                if path.exists():
                    name = entry["name"].lower()
                    emojis.append(
                        Emoji(name=name, caption=f"{description}, {style}", path=path, held_out=is_held_out(name))
                    )
    return emojis


def pixels(emojis: list[Emoji]) -> torch.Tensor:
    """Return the pictures on white, uint8 [N, 3, 64, 64]."""
    pictures = []
    for emoji in emojis:
        picture = Image.open(emoji.path).convert("RGBA").resize((64, 64), Image.Resampling.LANCZOS)
        pictures.append(np.asarray(Image.alpha_composite(Image.new("RGBA", (64, 64), "white"), picture).convert("RGB")))
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
