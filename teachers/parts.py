"""What several teachers share: the judge and its text tower, the codec; from this run, or from an exported folder."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

import autoencoder
import clip
from clip import OWN_TOWER

CPU = torch.device("cpu")


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


def load_judge(run: Path | None, words: CLIPTokenizer, init: Path | None) -> CLIPModel:
    """Return the CLIP that was trained in `run`, or else the one in an exported folder."""
    judge = clip.model(words)
    if run and (run / "clip.safetensors").exists():
        judge.load_state_dict(averaged(run / "clip.safetensors"), strict=False)
    elif init:
        clip.warm_start(judge, words, init)
    return judge.eval()


def load_codec(run: Path | None, init: Path | None) -> AutoencoderTiny:
    """Return the autoencoder that was trained in `run`, or else the one in an exported folder."""
    codec = autoencoder.model()
    if init:
        codec = AutoencoderTiny.from_pretrained(init / "vae", dtype=torch.float32)
        codec.register_to_config(_name_or_path="")  # it would be written to the exported teacher
    if run and (run / "autoencoder.safetensors").exists():
        codec.load_state_dict(averaged(run / "autoencoder.safetensors"), strict=False)
        # set when its training ends; see train.py
        codec.register_to_config(scaling_factor=float((run / "scaling_factor.txt").read_text()))
    return codec.eval()


def load_tower(judge: CLIPModel, init: Path | None) -> CLIPTextModel:
    """Return the text encoder of an exported teacher, or else the judge's, from which a teacher's own starts."""
    if init and (init / OWN_TOWER).exists():
        return CLIPTextModel.from_pretrained(init / "text_encoder", dtype=torch.float32).eval()
    return clip.text_tower(judge)


def load(run: Path | None, words: CLIPTokenizer, init: Path | None, device: torch.device = CPU) -> Parts:
    """Return all shared parts, on `device`."""
    judge = load_judge(run, words, init)
    tower, codec = load_tower(judge, init), load_codec(run, init)
    return Parts(words=words, judge=judge.to(device), tower=tower.to(device), codec=codec.to(device))
