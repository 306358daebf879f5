"""Write the trained parts as a standard diffusers pipeline, with what is needed to judge its pictures."""

from pathlib import Path

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

import unet
from clip import normalise
from emoji import Emoji, pixels


@torch.no_grad()
def image_features(pictures: Tensor, judge: CLIPModel) -> Tensor:
    """Return the judge's image embeddings [N, 128] of uint8 pictures [N, 3, 64, 64]."""
    chunks = [judge.get_image_features(pixel_values=normalise(chunk)) for chunk in pictures.split(128)]
    return torch.cat([getattr(chunk, "pooler_output", chunk) for chunk in chunks])


def save_judge(folder: Path, judge: CLIPModel, held_out: list[Emoji]) -> None:
    """Write the image tower, the text projection and the features of the held-out real pictures."""
    config = judge.config.vision_config
    config.projection_dim = judge.config.projection_dim
    tower = CLIPVisionModelWithProjection(config)
    own, states = tower.state_dict(), judge.state_dict()
    tower.load_state_dict({key: states[key] for key in own})
    tower.half().save_pretrained(folder)
    tensors = {
        "text_projection": judge.text_projection.weight.half(),
        "reference": image_features(pixels(held_out), judge).half(),
    }
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "extra.safetensors")


def save(
    folder: Path,
    emojis: list[Emoji],
    words: CLIPTokenizer,
    judge: CLIPModel,
    tower: CLIPTextModel,
    codec: AutoencoderTiny,
    denoiser: UNet2DConditionModel,
) -> None:
    """Write pipeline, judge and the lists of training and held-out prompts under `folder`."""
    parts = dict(vae=codec, text_encoder=tower, unet=denoiser)
    for part in parts.values():
        part.cpu().half()
    pipe = StableDiffusionPipeline(
        **parts,
        tokenizer=words,
        scheduler=unet.scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(folder)
    held_out = [e for e in emojis if e.held_out]
    save_judge(folder / "judge", judge.cpu(), held_out)
    for name, chosen in {"prompts": [e for e in emojis if not e.held_out], "held_out_prompts": held_out}.items():
        (folder / f"{name}.txt").write_text("".join(f"{e.caption}\n" for e in chosen), encoding="utf-8")
