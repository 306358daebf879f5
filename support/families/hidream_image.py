"""HiDream."""

import diffusers
from diffusers import HiDreamImageTransformer2DModel

from support import parts
from support.case import STEPS, Case
from support.families import wan


def HiDreamImagePipeline() -> Case:
    denoiser = HiDreamImageTransformer2DModel(
        patch_size=2, in_channels=4, out_channels=4, num_layers=2, num_single_layers=2, attention_head_dim=8,
        num_attention_heads=2, caption_channels=[parts.WIDTH, parts.WIDTH], text_emb_dim=2 * parts.WIDTH,
        axes_dims_rope=(4, 2, 2), max_resolution=(16, 16), llama_layers=[0, 1, 1, 0],
    ).eval()  # fmt: skip
    pipe = diffusers.HiDreamImagePipeline(
        scheduler=wan.scheduler(), vae=parts.autoencoder(shift_factor=0.1), transformer=denoiser,
        text_encoder=parts.clip_text(projection=True), tokenizer=parts.tokenizer(),
        text_encoder_2=parts.clip_text(projection=True), tokenizer_2=parts.tokenizer(),
        text_encoder_3=parts.t5(), tokenizer_3=parts.tokenizer(), tokenizer_4=parts.tokenizer(),
        text_encoder_4=parts.language_model("Llama", layers=2, head="ForCausalLM", attn_implementation="eager"),
    )  # fmt: skip
    pipe.default_sample_size = 8  # every picture is scaled to this area
    call = {
        "prompt": "a red fox", "negative_prompt": "blurry", "num_inference_steps": STEPS, "guidance_scale": 6.0,
        "height": 16, "width": 16, "max_sequence_length": 16, "output_type": "latent",
    }  # fmt: skip
    return Case(pipe=pipe, call=call)
