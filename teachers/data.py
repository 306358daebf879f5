"""The data as the trainings see it: pictures, token ids, latents."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTokenizer

import autoencoder
import clip
import emoji
import pack


@dataclass(frozen=True, kw_only=True)
class Data:
    """Pictures of one split: uint8 [N, 3, 64, 64], token ids [N, wordings, T], and groups of what counts as one."""

    emojis: list[emoji.Emoji]
    pixels: Tensor
    ids: Tensor
    groups: list[list[int]] = field(repr=False)


def everything(cache: Path, names: int | None = None) -> tuple[list[emoji.Emoji], Tensor]:
    """Return all pictures of all splits, from a pack if `cache` has one, or those of the `names` most drawn alone."""
    cache.mkdir(parents=True, exist_ok=True)
    if (cache / pack.NAME).exists():
        emojis, pixels = pack.read(cache / pack.NAME)
    else:
        emojis = emoji.load(cache)
        pixels = emoji.pixels(emojis, cache)
    if names is None:
        return emojis, pixels
    wanted = set(emoji.most_drawn(emojis, names))
    chosen = [index for index, one in enumerate(emojis) if one.name in wanted]
    return [emojis[index] for index in chosen], pixels[chosen]


def tokenizer(emojis: list[emoji.Emoji], folder: Path) -> CLIPTokenizer:
    """Return the tokenizer in `folder`, learned from the training pictures' wordings if there is none yet."""
    if not folder.exists():
        clip.tokenizer([w for e in emojis if e.split == emoji.TRAIN for w in e.wordings]).save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)


def tokens(texts: list[str], words: CLIPTokenizer) -> Tensor:
    """Return token ids [N, T]."""
    return words(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids


def part(split: str, emojis: list[emoji.Emoji], pixels: Tensor, words: CLIPTokenizer) -> Data:
    """Return one split of all pictures uint8 [N, 3, 64, 64]."""
    chosen = [i for i, e in enumerate(emojis) if e.split == split]
    own = [emojis[i] for i in chosen]
    ids = tokens([w for e in own for w in e.wordings], words).unflatten(0, (len(own), -1))
    return Data(emojis=own, pixels=pixels[chosen], ids=ids, groups=emoji.groups(own))


def latents(pixels: Tensor, codec: AutoencoderTiny, cache: Path) -> Tensor:
    """Return scaled latents [N, 4, 16, 16], encoded once for a codec and then read from `cache`."""
    weights = torch.cat([p.detach().flatten().float().cpu() for p in codec.parameters()])
    digest = hashlib.sha256(weights.numpy().tobytes() + str(len(pixels)).encode()).hexdigest()[:12]
    path = cache / f"latents-{digest}.safetensors"
    if not path.exists():
        save_file({"latents": autoencoder.encode(pixels, codec)}, path)
    return load_file(path)["latents"] * codec.config["scaling_factor"]
