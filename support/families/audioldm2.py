"""AudioLDM 2."""

from string import ascii_lowercase
from typing import Any

import diffusers
import transformers
from diffusers import AudioLDM2ProjectionModel, AudioLDM2UNet2DConditionModel

from support import parts
from support.case import Case
from support.families.deprecated_audioldm import CALL, clap, scheduler, vae, vocoder

CONDITIONS = (None, parts.WIDTH, parts.WIDTH)  # the picture itself, the generated and the encoded prompt


def unet() -> AudioLDM2UNet2DConditionModel:
    return AudioLDM2UNet2DConditionModel(
        sample_size=16, layers_per_block=1, block_out_channels=(16, 32), norm_num_groups=8, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=(CONDITIONS, CONDITIONS),
    )  # fmt: skip


def writer() -> Any:
    config = transformers.GPT2Config(
        vocab_size=parts.VOCABULARY, n_positions=64, n_embd=parts.WIDTH, n_layer=2, n_head=4, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def letters() -> Any:
    """Return a tokenizer of letters: the pipeline tells its two tokenizers apart by their classes."""
    pieces = [(piece, -float(rank)) for rank, piece in enumerate(["<pad>", "</s>", "<unk>", "▁", *ascii_lowercase])]
    return transformers.T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=16)


def AudioLDM2Pipeline() -> Case:
    return Case(
        pipe=diffusers.AudioLDM2Pipeline(
            unet=unet(), vae=vae(), vocoder=vocoder(), scheduler=scheduler(), text_encoder=clap(),
            tokenizer=parts.roberta_tokenizer(), feature_extractor=transformers.ClapFeatureExtractor(),
            text_encoder_2=parts.t5(), tokenizer_2=letters(), language_model=writer(),
            projection_model=AudioLDM2ProjectionModel(parts.WIDTH, parts.WIDTH, parts.WIDTH),
        ),
        call={**CALL, "max_new_tokens": 8, "output_type": "latent"},
    )  # fmt: skip
