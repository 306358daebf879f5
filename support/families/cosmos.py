"""Cosmos 1, 2, 2.5 and 3."""

from types import SimpleNamespace
from typing import Any

import diffusers
from diffusers import (
    AutoencoderKLCosmos,
    Cosmos3OmniTransformer,
    CosmosControlNetModel,
    CosmosTransformer3DModel,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.models.controlnets import controlnet_cosmos
from torch.nn import functional

from support import parts
from support.case import STEPS, Case
from support.families import wan

LATENTS = 16
SIZE = 32
FRAMES = 5
SHAPE: dict[str, Any] = {
    "num_attention_heads": 2, "attention_head_dim": 16, "text_embed_dim": parts.WIDTH, "mlp_ratio": 2.0,
    "adaln_lora_dim": 4, "max_size": (8, 16, 16),
}  # fmt: skip
# The text encoder of Cosmos 2.5 answers with all its layers side by side.
LAYERS = 2
PROJECTION: dict[str, Any] = {
    "use_crossattn_projection": True, "crossattn_proj_in_channels": LAYERS * parts.WIDTH,
    "encoder_hidden_states_channels": parts.WIDTH, "extra_pos_embed_type": None,
}  # fmt: skip
PROMPT_ONLY = (
    "{% for message in messages if message['role'] == 'user' %}{{ message['content'][0]['text'] }}{% endfor %}"
)

CALL: dict[str, Any] = {
    "prompt": "a red fox", "negative_prompt": "blurry", "num_inference_steps": STEPS, "guidance_scale": 4.0,
    "height": SIZE, "width": SIZE, "max_sequence_length": 16, "output_type": "latent",
}  # fmt: skip


class Guardrail:
    """Takes the place of a safety checker that is an extra package."""

    def to(self, *arguments: Any, **options: Any) -> "Guardrail":
        return self

    def check_text_safety(self, prompt: str) -> bool:
        return True

    def check_video_safety(self, frames: Any) -> Any:
        return frames


def transformer(in_channels: int = LATENTS, **options: Any) -> CosmosTransformer3DModel:
    # A padding mask is resized with torchvision, an extra package.
    return CosmosTransformer3DModel(
        **SHAPE, in_channels=in_channels, out_channels=LATENTS, num_layers=2, concat_padding_mask=False, **options
    )


def first(in_channels: int = LATENTS) -> dict[str, Any]:
    """Return the components of Cosmos 1."""
    autoencoder = AutoencoderKLCosmos(
        latent_channels=LATENTS, encoder_block_out_channels=(8, 8, 8, 8), decode_block_out_channels=(8, 8, 8, 8),
        attention_resolutions=(8,), resolution=64, num_layers=1, patch_size=2, spatial_compression_ratio=8,
        temporal_compression_ratio=4,
    )  # fmt: skip
    return {
        "text_encoder": parts.t5(), "tokenizer": parts.tokenizer(), "transformer": transformer(in_channels),
        "vae": autoencoder, "safety_checker": Guardrail(),
        "scheduler": EDMEulerScheduler(sigma_data=0.5, sigma_schedule="karras", final_sigmas_type="sigma_min"),
    }  # fmt: skip


def second(in_channels: int = LATENTS) -> dict[str, Any]:
    """Return the components of Cosmos 2."""
    return {
        "text_encoder": parts.t5(), "tokenizer": parts.tokenizer(),
        "transformer": transformer(in_channels, extra_pos_embed_type=None), "vae": wan.vae(),
        "scheduler": FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True), "safety_checker": Guardrail(),
    }  # fmt: skip


def half(**options: Any) -> dict[str, Any]:
    """Return the components of Cosmos 2.5."""
    return {
        "text_encoder": parts.vision_language("Qwen2_5_VL", layers=LAYERS),
        "tokenizer": parts.tokenizer(chat_template=PROMPT_ONLY),
        "transformer": transformer(LATENTS + 1, **PROJECTION, **options), "vae": wan.vae(),
        "scheduler": wan.scheduler(5.0), "safety_checker": Guardrail(),
    }  # fmt: skip


def CosmosTextToWorldPipeline() -> Case:
    return Case(pipe=diffusers.CosmosTextToWorldPipeline(**first()), call={**CALL, "num_frames": FRAMES})


def CosmosVideoToWorldPipeline() -> Case:
    return Case(
        pipe=diffusers.CosmosVideoToWorldPipeline(**first(LATENTS + 1)),
        call={**CALL, "num_frames": 9, "video": parts.film(1, SIZE)},
    )


def Cosmos2TextToImagePipeline() -> Case:
    return Case(pipe=diffusers.Cosmos2TextToImagePipeline(**second()), call=CALL)


def Cosmos2VideoToWorldPipeline() -> Case:
    return Case(
        pipe=diffusers.Cosmos2VideoToWorldPipeline(**second(LATENTS + 1)),
        call={**CALL, "num_frames": 9, "image": parts.picture(SIZE)},
    )


def Cosmos2_5_PredictBasePipeline() -> Case:
    return Case(pipe=diffusers.Cosmos2_5_PredictBasePipeline(**half()), call={**CALL, "num_frames": FRAMES})


def Cosmos2_5_TransferPipeline() -> Case:
    context: dict[str, Any] = {"img_context_dim_in": 8, "img_context_dim_out": parts.WIDTH}
    controlnet = CosmosControlNetModel(
        **SHAPE, n_controlnet_blocks=2, in_channels=LATENTS + 2, latent_channels=LATENTS + 2,
        model_channels=parts.WIDTH, **PROJECTION, **context,
    )  # fmt: skip
    resizing()
    return Case(
        pipe=diffusers.Cosmos2_5_TransferPipeline(
            **half(controlnet_block_every_n=1, img_context_num_tokens=4, **context), controlnet=controlnet
        ),
        call={**CALL, "controls": parts.film(FRAMES, SIZE), "num_frames_per_chunk": FRAMES},
    )


def resizing() -> None:
    """Let the control network resize its (empty) padding mask where torchvision, an extra package, is missing."""
    if hasattr(controlnet_cosmos, "transforms"):
        return
    controlnet_cosmos.transforms = SimpleNamespace(
        InterpolationMode=SimpleNamespace(NEAREST="nearest"),
        functional=SimpleNamespace(
            resize=lambda mask, size, interpolation: functional.interpolate(mask, size=size, mode=interpolation)
        ),
    )


def Cosmos3OmniPipeline() -> Case:
    network = Cosmos3OmniTransformer(
        head_dim=16, hidden_size=32, intermediate_size=32, latent_channel=LATENTS, patch_latent_dim=4 * LATENTS,
        num_attention_heads=2, num_hidden_layers=2, num_key_value_heads=1, rope_axes_dim=[4, 2, 2],
        vocab_size=parts.VOCABULARY,
    )  # fmt: skip
    pipe = diffusers.Cosmos3OmniPipeline(
        transformer=network, text_tokenizer=parts.vision_tokenizer(), vae=wan.vae(), scheduler=wan.scheduler(),
        enable_safety_checker=False,
    )  # fmt: skip
    call = {**CALL, "num_frames": FRAMES, "use_system_prompt": False}
    del call["max_sequence_length"]
    return Case(pipe=pipe, call=call)
