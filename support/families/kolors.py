"""Kolors."""

from typing import Any

from diffusers import EulerDiscreteScheduler
from diffusers.pipelines.kolors import pipeline_kolors, pipeline_kolors_img2img
from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig, ChatGLMModel, RMSNorm
from torch import nn
from transformers import BatchEncoding, PreTrainedTokenizerFast

from support import parts
from support.case import Case
from support.families import stable_diffusion_xl as xl

TOKENS = 16
CROSS = 24


class GLMTokenizer(PreTrainedTokenizerFast):
    """A tokenizer of bytes that also answers with positions, as the one of ChatGLM does."""

    def __call__(self, *args: Any, **options: Any) -> BatchEncoding:
        encoded = super().__call__(*args, **options)
        encoded["position_ids"] = (encoded["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        return encoded


def tokenizer() -> GLMTokenizer:
    return GLMTokenizer(
        tokenizer_object=parts.tokenizer().backend_tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        model_max_length=TOKENS, padding_side="left",
    )  # fmt: skip


def text_encoder() -> ChatGLMModel:
    config = ChatGLMConfig(
        num_layers=2, padded_vocab_size=parts.VOCABULARY, hidden_size=parts.WIDTH, ffn_hidden_size=37, kv_channels=8,
        num_attention_heads=4, seq_length=TOKENS, multi_query_attention=True, multi_query_group_num=2,
        add_qkv_bias=True, original_rope=True,
    )  # fmt: skip
    made = ChatGLMModel(config, empty_init=False)
    for module in made.modules():
        if isinstance(module, RMSNorm):  # its weights are uninitialised memory
            nn.init.ones_(module.weight)
    return made


def components() -> dict[str, Any]:
    return {
        "unet": xl.unet(
            cross_attention_dim=CROSS, encoder_hid_dim=parts.WIDTH, encoder_hid_dim_type="text_proj"
        ),
        "scheduler": EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1),
        "vae": parts.autoencoder(), "text_encoder": text_encoder(), "tokenizer": tokenizer(),
    }  # fmt: skip


CALL = {**xl.CALL, "max_sequence_length": TOKENS}


def KolorsPipeline() -> Case:
    return Case(pipe=pipeline_kolors.KolorsPipeline(**components()), call={**CALL, **xl.SIZE})


def KolorsImg2ImgPipeline() -> Case:
    return Case(
        pipe=pipeline_kolors_img2img.KolorsImg2ImgPipeline(**components()),
        call={**CALL, **xl.SIZE, "image": parts.picture(), "strength": 0.7},
    )
