"""What several teachers share: the judge and its text tower, the codec; from this run, or else the bundled ones."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

import clip
from guidefold.demo import bundle

CPU = torch.device("cpu")
BUNDLED = bundle.FOLDERS[bundle.UNET]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Parts of a teacher that are trained before it; its text encoder goes on from `tower`."""

    words: CLIPTokenizer
    judge: CLIPModel
    tower: CLIPTextModel
    codec: AutoencoderTiny


def averaged(path: Path) -> dict[str, torch.Tensor]:
    """Return the averaged weights of a checkpoint."""
    return {k.removeprefix("ema."): v for k, v in load_file(path).items() if k.startswith("ema.")}


def load_judge(run: Path | None, words: CLIPTokenizer) -> CLIPModel:
    """Return the CLIP that was trained in `run`, or else the bundled one."""
    judge = clip.model(words)
    if run and (run / "clip.safetensors").exists():
        judge.load_state_dict(averaged(run / "clip.safetensors"), strict=False)
    else:
        clip.warm_start(judge, words, bundle.JUDGE)
    return judge.eval()


def load_codec(run: Path | None, init: Path = BUNDLED) -> AutoencoderTiny:
    """Return the autoencoder that was trained in `run`, or else the one of an exported teacher."""
    codec = AutoencoderTiny.from_pretrained(init / "vae", dtype=torch.float32)
    codec.register_to_config(_name_or_path="")  # it would be written to the exported teacher
    if run and (run / "autoencoder.safetensors").exists():
        codec.load_state_dict(averaged(run / "autoencoder.safetensors"), strict=False)
        # set when its training ends; see train.py
        codec.register_to_config(scaling_factor=float((run / "scaling_factor.txt").read_text()))
    return codec.eval()


def load_tower(judge: CLIPModel, init: Path | None) -> CLIPTextModel:
    """Return the text encoder of an exported teacher, or else the judge's, from which a teacher's own starts."""
    if init:
        return CLIPTextModel.from_pretrained(init / "text_encoder", dtype=torch.float32).eval()
    return clip.tower(judge, CLIPTextModel)


def load(run: Path | None, words: CLIPTokenizer, init: Path | None = None, device: torch.device = CPU) -> Parts:
    """Return all shared parts, on `device`: from a run, an exported teacher A, or the bundled one."""
    judge = load_judge(run, words)
    tower, codec = load_tower(judge, init), load_codec(run, init or BUNDLED)
    return Parts(words=words, judge=judge.to(device), tower=tower.to(device), codec=codec.to(device))
