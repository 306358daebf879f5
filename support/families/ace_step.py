"""ACE-Step."""

from typing import Any

import diffusers
from diffusers import AceStepTransformer1DModel, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.ace_step import AceStepConditionEncoder

from support import parts
from support.case import STEPS, Case
from support.families import stable_audio

SHAPE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip


def transformer() -> AceStepTransformer1DModel:
    return AceStepTransformer1DModel(
        **SHAPE, num_hidden_layers=2, in_channels=24, audio_acoustic_hidden_dim=8, encoder_hidden_size=32
    )


def condition_encoder() -> AceStepConditionEncoder:
    return AceStepConditionEncoder(
        **SHAPE, text_hidden_dim=parts.WIDTH, timbre_hidden_dim=8, num_lyric_encoder_hidden_layers=2,
        num_timbre_encoder_hidden_layers=2,
    )  # fmt: skip


def AceStepPipeline() -> Case:
    return Case(
        pipe=diffusers.AceStepPipeline(
            transformer=transformer(), vae=stable_audio.vae(), condition_encoder=condition_encoder(),
            text_encoder=parts.language_model("Qwen3"), tokenizer=parts.tokenizer(2048),
            scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1),
        ),
        call={
            "prompt": "a red fox", "lyrics": "la la", "audio_duration": 2.0, "num_inference_steps": STEPS,
            "guidance_scale": 6.0, "output_type": "latent",
        },
    )  # fmt: skip
