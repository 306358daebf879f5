"""Tiny random components that many pipelines share."""

from typing import Any

import torch
import transformers
from diffusers import AutoencoderKL
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

WIDTH = 32
VOCABULARY = 320  # 256 bytes and room for special tokens
CHAT = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"


def tokenizer(length: int = 16, special: tuple[str, ...] = (), chat_template: str | None = CHAT) -> Any:
    """Return a tokenizer of bytes with padding, start and end tokens; `special` adds tokens of its own."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<pad>", "<s>", "</s>", "<unk>"]
    words = {word: number for number, word in enumerate([*names, *alphabet])}
    engine = Tokenizer(models.BPE(vocab=words, merges=[], unk_token="<unk>"))
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=engine, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        model_max_length=length, padding_side="right",
    )  # fmt: skip
    if special:
        made.add_special_tokens({"additional_special_tokens": list(special)})
    made.chat_template = chat_template
    return made


def clip_text(width: int = WIDTH, *, projection: bool = False, length: int = 16) -> Any:
    """Return a CLIP text encoder of two layers, with its projection if asked."""
    config = CLIPTextConfig(
        vocab_size=VOCABULARY, hidden_size=width, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=length, projection_dim=width, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def t5(width: int = WIDTH, *, umt5: bool = False) -> Any:
    """Return a T5 (or UMT5) encoder of two layers."""
    config, model = (UMT5Config, UMT5EncoderModel) if umt5 else (T5Config, T5EncoderModel)
    return model(
        config(
            vocab_size=VOCABULARY,
            d_model=width,
            d_ff=37,
            d_kv=8,
            num_layers=2,
            num_heads=4,
            pad_token_id=0,
            eos_token_id=2,
            decoder_start_token_id=0,
        )
    ).eval()


def autoencoder(latent_channels: int = 4, *, blocks: int = 2, **options: Any) -> AutoencoderKL:
    """Return an image autoencoder that shrinks by 2 ** (blocks - 1)."""
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=latent_channels, sample_size=32, norm_num_groups=8,
        block_out_channels=(8,) * blocks, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * blocks, up_block_types=("UpDecoderBlock2D",) * blocks, **options,
    ).eval()  # fmt: skip


def picture(size: int = 32, *, channels: int = 3, seed: int = 0) -> torch.Tensor:
    """Return a random picture [1, C, size, size] in 0..1."""
    return torch.rand(1, channels, size, size, generator=torch.Generator().manual_seed(seed))


def photo(size: int = 32, *, seed: int = 0) -> Image.Image:
    """Return a random picture as PIL makes them."""
    pixels = picture(size, seed=seed)[0].permute(1, 2, 0) * 255
    return Image.fromarray(pixels.to(torch.uint8).numpy())


def clip_vision(width: int = WIDTH, *, size: int = 32, patch: int = 16, projection: bool = False) -> Any:
    """Return a CLIP image encoder of two layers; its sequence has (size / patch) ** 2 + 1 entries."""
    config = transformers.CLIPVisionConfig(
        hidden_size=width, intermediate_size=37, projection_dim=width, num_hidden_layers=2, num_attention_heads=4,
        image_size=size, patch_size=patch,
    )  # fmt: skip
    name = "CLIPVisionModelWithProjection" if projection else "CLIPVisionModel"
    return getattr(transformers, name)(config).eval()


def clip_pictures(size: int = 32) -> Any:
    """Return what prepares pictures for a CLIP image encoder."""
    return transformers.CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


def siglip_vision(width: int = WIDTH, *, size: int = 32, patch: int = 16) -> Any:
    """Return a SigLIP image encoder of two layers; its sequence has (size / patch) ** 2 entries."""
    config = transformers.SiglipVisionConfig(
        hidden_size=width, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4, image_size=size,
        patch_size=patch,
    )  # fmt: skip
    return transformers.SiglipVisionModel(config).eval()


def siglip_pictures(size: int = 32) -> Any:
    """Return what prepares pictures for a SigLIP image encoder."""
    return transformers.SiglipImageProcessor(size={"height": size, "width": size})


def language_model(kind: str, width: int = WIDTH, *, layers: int = 3, head: str = "Model", **options: Any) -> Any:
    """Return a decoder-only language model, such as `language_model("Llama")` or `("Gemma2")`."""
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=VOCABULARY, hidden_size=width, intermediate_size=37, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, head_dim=width // 4, max_position_embeddings=2048,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, **options,
    )  # fmt: skip
    return getattr(transformers, f"{kind}{head}")(config).eval()


def film(count: int, size: int = 32, *, seed: int = 0) -> list[Any]:
    """Return a random film as PIL images."""
    pictures = torch.rand(count, size, size, 3, generator=torch.Generator().manual_seed(seed))
    return [Image.fromarray(one) for one in (pictures * 255).byte().numpy()]


VISION = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|im_start|>", "<|im_end|>")
TALK = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def vision_tokenizer(length: int = 4096) -> Any:
    """Return a tokenizer with the special tokens of Qwen's vision-language models."""
    return tokenizer(length, VISION, TALK)


def vision_language(kind: str, width: int = WIDTH, *, layers: int = 2, head: str = "ForConditionalGeneration") -> Any:
    """Return a tiny vision-language model of Qwen: `vision_language("Qwen2_5_VL")` or `("Qwen3VL")`."""
    text = {
        "vocab_size": VOCABULARY, "hidden_size": width, "intermediate_size": 37, "num_hidden_layers": layers,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": width // 4, "max_position_embeddings": 4096,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        "rope_parameters": {"rope_type": "default", "mrope_section": [width // 8 - 2, 1, 1], "rope_theta": 10000.0},
    }  # fmt: skip
    vision = {"depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": width}
    if kind == "Qwen3VL":
        vision |= {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
        text["rope_parameters"] |= {"mrope_interleaved": True}
    else:
        vision |= {"fullatt_block_indexes": [1]}
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    ids = vision_tokenizer().convert_tokens_to_ids(list(VISION[:4]))
    made = getattr(transformers, f"{kind}Config")(
        text_config=text, vision_config=vision, **dict(zip(names, ids, strict=True))
    )
    return getattr(transformers, f"{kind}{head}")(made).eval()


class PictureProcessor(transformers.Qwen2VLProcessor):
    """Qwen's processor for text and pictures; the one for films needs torchvision."""

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> type:
        return type(argument)


def vision_processor(patch: int = 14) -> PictureProcessor:
    """Return a processor that shrinks every picture to four tokens; a patch has 14 pixels (Qwen3VL: 16)."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    area = (4 * patch) ** 2
    pictures = Qwen2VLImageProcessorPil(patch_size=patch, min_pixels=area, max_pixels=area)
    return PictureProcessor(image_processor=pictures, tokenizer=vision_tokenizer(), chat_template=TALK)


def lively(network: Any, gain: float = 2.0) -> Any:
    """Return the network with its matrices enlarged, where at the usual size a prompt hardly changes the answer."""
    for parameter in network.parameters():
        if parameter.dim() == 2:
            parameter.data.mul_(gain)
    return network


def roberta_tokenizer(length: int = 16) -> Any:
    """Return a tokenizer of bytes that puts a start and an end around every text, so that none is empty."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<pad>", "<s>", "</s>", "<unk>"]
    words = {word: number for number, word in enumerate([*names, *alphabet, "<mask>"])}
    return transformers.RobertaTokenizer(vocab=words, merges=[], model_max_length=length)
