"""HunyuanVideo, its image variants, SkyReels V1 and FramePack."""

from typing import Any

import diffusers
import transformers
from diffusers import AutoencoderKLHunyuanVideo, FlowMatchEulerDiscreteScheduler, HunyuanVideoTransformer3DModel

from support import parts
from support.case import STEPS, Case

SHAPE: dict[str, Any] = {
    "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 2, "num_single_layers": 2,
    "num_refiner_layers": 1, "text_embed_dim": parts.WIDTH, "pooled_projection_dim": parts.WIDTH,
    "rope_axes_dim": (4, 4, 4),
}  # fmt: skip


def transformer(in_channels: int = 4, **options: Any) -> HunyuanVideoTransformer3DModel:
    return HunyuanVideoTransformer3DModel(in_channels=in_channels, out_channels=4, **SHAPE, **options).eval()


def vae() -> AutoencoderKLHunyuanVideo:
    """Return a video autoencoder that shrinks pictures by 8 and time by 4."""
    return AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4,
    ).eval()  # fmt: skip


def components(**options: Any) -> dict[str, Any]:
    return {
        "text_encoder": parts.language_model("Llama"), "tokenizer": parts.tokenizer(), "vae": vae(),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=7.0), "text_encoder_2": parts.clip_text(length=77),
        "tokenizer_2": parts.tokenizer(77), "transformer": transformer(**options),
    }  # fmt: skip


CALL = {
    "prompt": "a red fox", "negative_prompt": "blurry", "num_inference_steps": STEPS, "true_cfg_scale": 4.0,
    "height": 32, "width": 32, "num_frames": 5, "max_sequence_length": 16, "output_type": "latent",
    "prompt_template": {"template": "{}", "crop_start": 0},
}  # fmt: skip


def HunyuanVideoPipeline() -> Case:
    return Case(pipe=diffusers.HunyuanVideoPipeline(**components()), call={**CALL, "guidance_scale": 6.0})


def HunyuanSkyreelsImageToVideoPipeline() -> Case:
    return Case(
        pipe=diffusers.HunyuanSkyreelsImageToVideoPipeline(**components(in_channels=8)),
        call={**CALL, "guidance_scale": 1.0, "image": parts.photo()},
    )


def llava() -> Any:
    """Return a language model that reads a picture as four tokens."""
    reader = parts.language_model("Llama").config
    looker = parts.clip_vision().config
    config = transformers.LlavaConfig(
        vision_config=looker, text_config=reader, image_token_index=parts.VOCABULARY - 1, image_seq_length=4,
        pad_token_id=0, vision_feature_layer=-1,
    )  # fmt: skip
    return transformers.LlavaForConditionalGeneration(config).eval()


def HunyuanVideoImageToVideoPipeline() -> Case:
    parts_of = components(in_channels=9, image_condition_type="latent_concat", guidance_embeds=False)
    parts_of["text_encoder"] = llava()
    parts_of["tokenizer"] = parts.tokenizer(special=("<image>", "<|end_header_id|>"))
    parts_of["text_encoder"].config.image_token_index = parts_of["tokenizer"].convert_tokens_to_ids("<image>")
    parts_of["image_processor"] = parts.clip_pictures()
    template = {
        "template": "s<|end_header_id|><image>u<|end_header_id|>{}a<|end_header_id|>",
        "crop_start": 5, "image_emb_start": 2, "image_emb_end": 6, "image_emb_len": 4,
    }  # fmt: skip
    return Case(
        pipe=diffusers.HunyuanVideoImageToVideoPipeline(**parts_of),
        call={**CALL, "guidance_scale": 1.0, "image": parts.photo(), "prompt_template": template},
    )


def HunyuanVideoFramepackPipeline() -> Case:
    denoiser = diffusers.HunyuanVideoFramepackTransformer3DModel(
        in_channels=4, out_channels=4, **SHAPE, has_image_proj=True, image_proj_dim=parts.WIDTH,
        has_clean_x_embedder=True,
    ).eval()  # fmt: skip
    parts_of = {
        **components(), "transformer": denoiser, "image_encoder": parts.siglip_vision(),
        "feature_extractor": parts.siglip_pictures(),
    }  # fmt: skip
    return Case(
        pipe=diffusers.HunyuanVideoFramepackPipeline(**parts_of),
        call={**CALL, "guidance_scale": 6.0, "image": parts.photo(), "latent_window_size": 2, "output_type": "pt"},
    )
