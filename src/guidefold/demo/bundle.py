"""The bundled teacher, its adapter and its judge: a small, real text-to-image model of emoji pictures."""

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
TEACHER = HERE / "teacher"
PROMPTS = TEACHER / "prompts.txt"
HELD_OUT_PROMPTS = TEACHER / "held_out_prompts.txt"


def load_teacher(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Any:
    """Return the bundled `StableDiffusionPipeline`: 64-pixel emoji from prompts such as "a name, noto"."""
    with hushed():
        from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

        settings = {"safety_checker": None, "local_files_only": True, "use_safetensors": True}
        pipe = StableDiffusionPipeline.from_pretrained(TEACHER, dtype=dtype, **settings)
    return pipe.to(device)


def prompts() -> list[str]:
    """Return the captions the teacher was trained on."""
    return read_conditions(PROMPTS)


def held_out_prompts() -> list[str]:
    """Return captions of pictures whose names neither teacher nor adapter has seen, mixed in a fixed order."""
    found = read_conditions(HELD_OUT_PROMPTS)
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0)).tolist()
    return [found[index] for index in order]


class BundledFeatures:
    """The bundled CLIP: image tower, text tower shared with the teacher, and features of the held-out real pictures."""

    def __init__(self) -> None:
        from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

        with hushed():
            kind = {"dtype": torch.float32, "use_safetensors": True}
            self.tower = CLIPVisionModelWithProjection.from_pretrained(TEACHER / "judge", **kind).eval()
            self.words = CLIPTokenizer.from_pretrained(TEACHER / "tokenizer")
            self.text = CLIPTextModel.from_pretrained(TEACHER / "text_encoder", **kind).eval()
        extra = load_file(TEACHER / "judge" / "extra.safetensors")
        self.projection, self.reference = extra["text_projection"].float(), extra["reference"].float()

    @torch.no_grad()
    def images(self, pictures: Tensor) -> Tensor:
        """Return embeddings [N, 128] of pictures [N, 3, H, W] in 0..1, resized to 64 x 64 where they are not."""
        pixels = pictures.cpu().float() * 2 - 1
        if pixels.shape[2:] != (64, 64):
            pixels = torch.nn.functional.interpolate(pixels, (64, 64), mode="bilinear", antialias=True)
        return self.tower(pixel_values=pixels).image_embeds

    @torch.no_grad()
    def texts(self, captions: Sequence[str]) -> Tensor:
        """Return embeddings [N, 128] of captions."""
        tokens = self.words(list(captions), padding="max_length", truncation=True, return_tensors="pt").input_ids
        return torch.nn.functional.linear(self.text(tokens).pooler_output, self.projection)


def load_judge() -> Judge:
    """Return the judge of the bundled teacher's pictures."""
    features = BundledFeatures()
    name = "bundled CLIP (4 M parameters, 64 px emoji); reference: held-out real pictures"
    return Judge(images=features.images, texts=features.texts, reference=features.reference, name=name)
