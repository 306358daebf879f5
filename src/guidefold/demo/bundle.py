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
UNET, DIT, SD3 = "bundled", "bundled-dit", "bundled-sd3"  # what the command line calls them
FOLDERS = {UNET: HERE / "teacher", DIT: HERE / "dit", SD3: HERE / "sd3"}
# what each is called with, unless told otherwise: without the zeros that stand in for an absent third text encoder
CALLS = {UNET: {}, DIT: {}, SD3: {"max_sequence_length": 1}}
REFERENCE = "reference.safetensors"
JUDGE = HERE / "judge"


def load_teacher(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, name: str = UNET) -> Any:
    """Return a bundled pipeline that draws 64-pixel emoji.

    `bundled` is a `StableDiffusionPipeline` and `bundled-sd3` a `StableDiffusion3Pipeline`, given prompts such as "fox,
    noto"; `bundled-dit` a `DiTPipeline`, given class labels.
    """
    with hushed():
        from diffusers.pipelines.dit.pipeline_dit import DiTPipeline
        from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
        from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline

        kinds: dict[str, tuple[Any, dict[str, None]]] = {
            UNET: (StableDiffusionPipeline, {"safety_checker": None}),
            DIT: (DiTPipeline, {}),
            SD3: (StableDiffusion3Pipeline, {"text_encoder_3": None, "tokenizer_3": None}),
        }
        kind, absent = kinds[name]
        settings = {"local_files_only": True, "use_safetensors": True, "dtype": dtype}
        return kind.from_pretrained(FOLDERS[name], **settings, **absent).to(device)


def prompts(name: str = UNET) -> list[str]:
    """Return what a teacher was trained on: captions, or class labels."""
    return read_conditions(FOLDERS[name] / "prompts.txt")


def held_out_prompts(name: str = UNET) -> list[str]:
    """Return what to judge on, mixed in a fixed order: names in styles nobody has seen them in, or all class labels."""
    found = read_conditions(FOLDERS[name] / "held_out_prompts.txt")
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0)).tolist()
    return [found[index] for index in order]


class BundledFeatures:
    """The features of one CLIP for all teachers, and those of real pictures of what a teacher has learnt.

    Of class labels the text features are kept.
    """

    def __init__(self, name: str = UNET) -> None:
        from transformers import CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionModelWithProjection

        kind = {"dtype": torch.float32, "use_safetensors": True}
        extra = {key: value.float() for key, value in load_file(FOLDERS[name] / REFERENCE).items()}
        self.reference, self.classes = extra["reference"], extra.get("classes")
        # the classes of the reference, or features of real pictures of the held-out prompts, as these are listed
        self.name, self.labels, self.held_out = name, extra.get("labels"), extra.get("held_out")
        with hushed():
            self.tower = CLIPVisionModelWithProjection.from_pretrained(JUDGE, **kind).eval()
            if self.classes is None:
                self.words = CLIPTokenizer.from_pretrained(JUDGE / "tokenizer")
                self.text = CLIPTextModelWithProjection.from_pretrained(JUDGE / "text_encoder", **kind).eval()

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
        return self.text(tokens).text_embeds


def load_judge(name: str = UNET) -> Judge:
    """Return the judge of a bundled teacher's pictures."""
    features = BundledFeatures(name)
    told = "bundled CLIP (4 M parameters, 64 px emoji); reference: real pictures"
    return Judge(images=features.images, texts=features.texts, reference=features.reference, name=told)
