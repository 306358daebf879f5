"""UniDiffuser."""

import diffusers
from diffusers import DPMSolverMultistepScheduler, UniDiffuserModel, UniDiffuserTextDecoder

from support import parts
from support.case import STEPS, Case


def unet() -> UniDiffuserModel:
    return UniDiffuserModel(
        text_dim=parts.WIDTH, clip_img_dim=parts.WIDTH, num_text_tokens=16, num_attention_heads=2, attention_head_dim=8,
        in_channels=4, out_channels=4, num_layers=2, sample_size=16, patch_size=2, activation_fn="gelu",
        num_embeds_ada_norm=1000, norm_type="layer_norm", block_type="unidiffuser", use_patch_pos_embed=True,
        use_data_type_embedding=True,
    )  # fmt: skip


def text_decoder() -> UniDiffuserTextDecoder:
    return UniDiffuserTextDecoder(
        prefix_length=16, prefix_inner_dim=parts.WIDTH, prefix_hidden_dim=parts.WIDTH, vocab_size=parts.VOCABULARY,
        n_positions=64, n_embd=parts.WIDTH, n_layer=2, n_head=4,
    )  # fmt: skip


def UniDiffuserPipeline() -> Case:
    return Case(
        pipe=diffusers.UniDiffuserPipeline(
            unet=unet(), vae=parts.autoencoder(), text_encoder=parts.clip_text(), clip_tokenizer=parts.tokenizer(),
            image_encoder=parts.clip_vision(projection=True), clip_image_processor=parts.clip_pictures(),
            text_decoder=text_decoder(), text_tokenizer=parts.tokenizer(),
            scheduler=DPMSolverMultistepScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", solver_order=3
            ),
        ),
        call={
            "prompt": "a red fox", "height": 32, "width": 32, "num_inference_steps": STEPS, "guidance_scale": 6.0,
            "output_type": "latent",
        },
    )  # fmt: skip
