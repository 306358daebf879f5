"""A small CLIP: its text tower conditions the teachers, its image tower judges their pictures."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
    PreTrainedModel,
)

from loop import Plan, fit

TOKENS = 24
WIDTH = 192
VOCABULARY = 2000
# the plain wording half of the time: it is the one that people use
WORDING_WEIGHTS = (0.5, 0.15, 0.15, 0.2)


def tokenizer(captions: list[str]) -> CLIPTokenizer:
    """Learn a byte-pair vocabulary from the training captions."""
    start, end = "<|startoftext|>", "<|endoftext|>"
    base = CLIPTokenizer(
        vocab={start: 0, end: 1}, merges=[], unk_token=end, bos_token=start, eos_token=end, pad_token=end
    )
    words = base.train_new_from_iterator(captions, vocab_size=VOCABULARY)
    words.model_max_length = TOKENS
    return words


def model(words: CLIPTokenizer) -> CLIPModel:
    tower = dict(hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=4, num_attention_heads=6)
    text = dict(
        tower,
        vocab_size=len(words),
        max_position_embeddings=TOKENS,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    vision = dict(tower, image_size=64, patch_size=8)
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=128))


def warm_start(clip: CLIPModel, words: CLIPTokenizer, folder: Path) -> None:
    """Begin from an exported judge's towers; what its vocabulary shares with the new one keeps its embedding."""
    states = load_file(folder / "text_encoder" / "model.safetensors") | load_file(folder / "model.safetensors")
    states = {key: value.float() for key, value in states.items()}
    old, table = (
        CLIPTokenizer.from_pretrained(folder / "tokenizer").get_vocab(),
        "text_model.embeddings.token_embedding.weight",
    )
    own = clip.state_dict()
    embedding, known = own[table].clone(), states.pop(table)
    for token, index in words.get_vocab().items():
        if token in old:
            embedding[index] = known[old[token]]
    clip.load_state_dict(own | states | {table: embedding})


def lock(clip: CLIPModel) -> None:
    """Let the image tower stay as it is: texts alone are learned (Zhai et al. 2022, arXiv 2111.07991)."""
    clip.vision_model.requires_grad_(False)
    clip.visual_projection.requires_grad_(False)


def normalise(pixels: Tensor) -> Tensor:
    """Map uint8 pictures [N, 3, 64, 64] to the image tower's range, -1 to 1."""
    return pixels.float() / 127.5 - 1


def shift(pixels: Tensor, generator: torch.Generator, most: int = 4) -> Tensor:
    """Move the whole batch by a few pixels over a white border."""
    dx, dy = torch.randint(0, 2 * most + 1, (2,), generator=generator, device=generator.device).tolist()
    return nn.functional.pad(pixels, (most,) * 4, value=255)[..., dy : dy + 64, dx : dx + 64]


def pick(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` random choices among weights [K], on the CPU."""
    return torch.multinomial(weights.to(generator.device), count, replacement=True, generator=generator).cpu()


def train(pixels: Tensor, tokens: Tensor, groups: list[list[int]], clip: CLIPModel, run: Path, plan: Plan) -> CLIPModel:
    """Train both towers with the symmetric contrastive loss (Radford et al. 2021, arXiv 2103.00020).

    Takes pictures uint8 [N, 3, 64, 64], token ids [N, wordings, T], and groups of pictures of which one is shown.
    """
    device = clip.device

    def loss_of(indices: Tensor, generator: torch.Generator) -> Tensor:
        chosen = members(groups, indices, generator)
        images = normalise(shift(pixels[chosen].to(device), generator))
        ids = tokens[chosen, pick(torch.tensor(WORDING_WEIGHTS), len(chosen), generator)].to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            output = clip(input_ids=ids, pixel_values=images)
        target = torch.arange(len(indices), device=device)
        logits = output.logits_per_text.float()
        return (nn.functional.cross_entropy(logits, target) + nn.functional.cross_entropy(logits.T, target)) / 2

    return fit("clip", clip, loss_of, size=len(groups), plan=plan, run=run)


def members(groups: list[list[int]], indices: Tensor, generator: torch.Generator) -> Tensor:
    """Return one random picture of each of the groups that `indices` names."""
    chance = torch.rand(len(indices), generator=generator, device=generator.device).tolist()
    return torch.tensor([groups[g][int(c * len(groups[g]))] for g, c in zip(indices.tolist(), chance, strict=True)])


def tower(judge: CLIPModel, kind: type[PreTrainedModel]) -> Any:
    """Return one of the towers as a model of its own."""
    config = judge.config.vision_config if kind is CLIPVisionModelWithProjection else judge.config.text_config
    config.projection_dim = judge.config.projection_dim
    made, states = kind(config), judge.state_dict()
    own = {key: key if key in states else f"text_model.{key}" for key in made.state_dict()}
    made.load_state_dict({key: states[name] for key, name in own.items()})
    return made.eval()


@torch.no_grad()
def accuracy(images: Tensor, texts: Tensor, names: list[str], among: int = 64, rounds: int = 200) -> float:
    """Return how often the nearest of `among` texts [N, D] of different names is the picture's own; images [N, D]."""
    images, texts = nn.functional.normalize(images.float(), dim=1), nn.functional.normalize(texts.float(), dim=1)
    similarity, right, total = images @ texts.T, 0, 0
    for one in range(rounds):
        order = torch.randperm(len(names), generator=torch.Generator().manual_seed(one)).tolist()
        chosen = list({names[index]: index for index in order}.values())[:among]
        rows = similarity[chosen][:, chosen].argmax(dim=1)
        right, total = right + int((rows == torch.arange(len(chosen))).sum()), total + len(chosen)
    return right / total
