"""The bundled teachers, their adapters and judges: small, real models of emoji pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from guidefold.evaluation.judge import Judge
from guidefold.hush import hushed
from guidefold.trajectories.prompts import read_conditions

HERE = Path(__file__).parent
UNET, DIT = "bundled", "bundled-dit"  # what the command line calls them
FOLDERS = {UNET: HERE / "teacher", DIT: HERE / "dit"}


def load_teacher(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, name: str = UNET) -> Any:
    """Return a bundled pipeline that draws 64-pixel emoji.

    `bundled` is a `StableDiffusionPipeline`, given prompts such as "a name, noto"; `bundled-dit` a `DiTPipeline`, given
    class labels.
    """
    with hushed():
        from diffusers.pipelines.dit.pipeline_dit import DiTPipeline
        from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

        settings = {"local_files_only": True, "use_safetensors": True, "dtype": dtype}
        if name == DIT:
            return DiTPipeline.from_pretrained(FOLDERS[name], **settings).to(device)
        return StableDiffusionPipeline.from_pretrained(FOLDERS[name], safety_checker=None, **settings).to(device)


def prompts(name: str = UNET) -> list[str]:
    """Return what a teacher was trained on: captions, or class labels."""
    return read_conditions(FOLDERS[name] / "prompts.txt")


def held_out_prompts(name: str = UNET) -> list[str]:
    """Return what to judge on, mixed in a fixed order: captions whose names nobody has seen, or all class labels."""
    found = read_conditions(FOLDERS[name] / "held_out_prompts.txt")
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0)).tolist()
    return [found[index] for index in order]


class BundledFeatures:
    """A teacher's own CLIP: image tower, text tower shared with the teacher, and features of held-out real pictures.

    Of class labels the text features are kept, and no text tower is.
    """

    def __init__(self, name: str = UNET) -> None:
        from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

        folder, kind = FOLDERS[name], {"dtype": torch.float32, "use_safetensors": True}
        extra = {key: value.float() for key, value in load_file(folder / "judge" / "extra.safetensors").items()}
        self.reference, self.projection = extra["reference"], extra.get("text_projection")
        self.classes, self.labels = extra.get("classes"), extra.get("labels")  # the latter those of the reference
        with hushed():
            self.tower = CLIPVisionModelWithProjection.from_pretrained(folder / "judge", **kind).eval()
            if self.classes is None:
                self.words = CLIPTokenizer.from_pretrained(folder / "tokenizer")
                self.text = CLIPTextModel.from_pretrained(folder / "text_encoder", **kind).eval()

    @torch.no_grad()
    def images(self, pictures: Tensor) -> Tensor:
        """Return embeddings [N, 128] of pictures [N, 3, H, W] in 0..1, resized to 64 x 64 where they are not."""
        pixels = pictures.cpu().float() * 2 - 1
        if pixels.shape[2:] != (64, 64):
            pixels = torch.nn.functional.interpolate(pixels, (64, 64), mode="bilinear", antialias=True)
        return self.tower(pixel_values=pixels).image_embeds

    @torch.no_grad()
    def texts(self, captions: Sequence[str]) -> Tensor:
        """Return embeddings [N, 128] of captions, or of class labels."""
        if self.classes is not None:
            return self.classes[[int(label) for label in captions]]
        tokens = self.words(list(captions), padding="max_length", truncation=True, return_tensors="pt").input_ids
        assert self.projection is not None
        return torch.nn.functional.linear(self.text(tokens).pooler_output, self.projection)


def load_judge(name: str = UNET) -> Judge:
    """Return the judge of a bundled teacher's pictures."""
    features = BundledFeatures(name)
    told = "bundled CLIP (4 M parameters, 64 px emoji); reference: real pictures"
    return Judge(images=features.images, texts=features.texts, reference=features.reference, name=told)
