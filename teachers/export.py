"""Write a trained teacher as a standard diffusers pipeline in half precision: `python teachers/export.py a FOLDER`.

All come with lists of prompts and with the judge's features of the real pictures of what they learnt: A and C with the
prompts of training, and those held out as pairs (a) and as names (b); B with its classes' labels and what the judge
makes of each. `judge` writes the judge.
"""

import argparse
import json
from pathlib import Path

import torch
from diffusers import DiffusionPipeline, DiTPipeline, StableDiffusion3Pipeline, StableDiffusionPipeline
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionModelWithProjection

import clip
import data
import dit
import emoji
import parts
import sd3
import unet
from clip import normalise
from guidefold.demo.bundle import REFERENCE
from iconify import STYLES
from train import HERE

LISTS = {"prompts": emoji.TRAIN, "held_out_prompts": emoji.PAIRS, "held_out_names": emoji.NAMES}


@torch.no_grad()
def image_features(pictures: Tensor, judge: CLIPModel) -> Tensor:
    """Return the judge's image embeddings [N, 128] of uint8 pictures [N, 3, 64, 64]."""
    chunks = [judge.get_image_features(pixel_values=normalise(chunk)) for chunk in pictures.split(128)]
    return torch.cat([getattr(chunk, "pooler_output", chunk) for chunk in chunks])


@torch.no_grad()
def text_features(ids: Tensor, judge: CLIPModel) -> Tensor:
    """Return the judge's text embeddings [N, 128] of token ids [N, T]."""
    chunks = [judge.get_text_features(input_ids=chunk) for chunk in ids.split(256)]
    return torch.cat([getattr(chunk, "pooler_output", chunk) for chunk in chunks])


def save_judge(folder: Path, shared: parts.Parts) -> None:
    """Write both towers, and the tokenizer."""
    clip.tower(shared.judge, CLIPVisionModelWithProjection).half().save_pretrained(folder)
    clip.tower(shared.judge, CLIPTextModelWithProjection).half().save_pretrained(folder / "text_encoder")
    shared.words.save_pretrained(folder / "tokenizer")


def save_reference(folder: Path, judge: CLIPModel, pictures: Tensor, **more: Tensor) -> None:
    """Write the judge's features of real pictures uint8 [N, 3, 64, 64], and more tensors."""
    tensors = {"reference": image_features(pictures, judge), **more}
    halved = {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}
    save_file({key: value.contiguous() for key, value in halved.items()}, folder / REFERENCE)


def class_features(names: list[str], words: CLIPTokenizer, judge: CLIPModel) -> Tensor:
    """Return the judge's text features [N, 128] of names: the mean over the styles."""
    captions = [f"{name}, {style}" for name in names for style in STYLES]
    features = nn.functional.normalize(text_features(data.tokens(captions, words), judge), dim=1)
    return features.unflatten(0, (len(names), -1)).mean(dim=1)


def save_classes(folder: Path, shared: parts.Parts, emojis: list[emoji.Emoji], pixels: Tensor) -> None:
    """Write what judges pictures of classes, and the classes' labels as prompts, to train on and to judge on alike."""
    names = dit.classes(emojis)
    numbers = {name: number for number, name in enumerate(names)}
    own = [index for index, e in enumerate(emojis) if e.name in numbers]
    labels = torch.tensor([numbers[emojis[index].name] for index in own], dtype=torch.int16)
    features = class_features(names, shared.words, shared.judge)
    save_reference(folder, shared.judge, pixels[own], classes=features, labels=labels)
    for name in ("prompts", "held_out_prompts"):
        (folder / f"{name}.txt").write_text("".join(f"{label}\n" for label in range(len(names))), encoding="utf-8")


def listed(emojis: list[emoji.Emoji], split: str) -> dict[str, int]:
    """Return the captions of a split, each once, with the place of the first picture that it is of."""
    found: dict[str, int] = {}
    for index, one in enumerate(emojis):
        if one.split == split:
            found.setdefault(one.caption, index)
    return found


def save_lists(folder: Path, emojis: list[emoji.Emoji]) -> None:
    """Write the captions of each split, each once."""
    for name, split in LISTS.items():
        if captions := listed(emojis, split):
            (folder / f"{name}.txt").write_text("".join(f"{caption}\n" for caption in captions), encoding="utf-8")


def trained(network: nn.Module, checkpoint: Path) -> nn.Module:
    """Return a network with the averaged weights of a checkpoint."""
    missing, unknown = network.load_state_dict(parts.averaged(checkpoint), strict=False)
    assert not unknown and not [name for name in missing if "pos_embed" not in name and "position_ids" not in name]
    return network.eval()


def pipeline_a(shared: parts.Parts, emojis: list[emoji.Emoji], checkpoint: Path) -> DiffusionPipeline:
    teacher = trained(unet.Teacher(shared.tower), checkpoint)
    return StableDiffusionPipeline(
        vae=shared.codec,
        text_encoder=teacher.text_encoder,
        tokenizer=shared.words,
        unet=teacher.unet,
        scheduler=unet.scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def pipeline_b(shared: parts.Parts, emojis: list[emoji.Emoji], checkpoint: Path) -> DiffusionPipeline:
    names = dit.classes(emojis)
    # the pipeline takes what a comma separates for other names of the class
    labels = {number: name.replace(",", "") for number, name in enumerate(names)}
    network = trained(dit.model(), checkpoint)
    pipe = DiTPipeline(transformer=network, vae=shared.codec, scheduler=unet.scheduler(), id2label=labels)
    # it reads the labels from its configuration but does not write them there
    pipe.register_to_config(id2label=labels)
    return pipe


def pipeline_c(shared: parts.Parts, emojis: list[emoji.Emoji], checkpoint: Path) -> DiffusionPipeline:
    teacher = trained(sd3.Teacher(shared.words), checkpoint)
    return StableDiffusion3Pipeline(
        transformer=teacher.transformer,
        scheduler=sd3.scheduler(),
        vae=shared.codec,
        text_encoder=teacher.text_encoder,
        text_encoder_2=teacher.text_encoder_2,
        text_encoder_3=None,
        tokenizer=shared.words,
        tokenizer_2=shared.words,
        tokenizer_3=None,
    )


PIPELINES = {"a": pipeline_a, "b": pipeline_b, "c": pipeline_c}


def save(name: str, folder: Path, shared: parts.Parts, emojis: list[emoji.Emoji], checkpoint: Path) -> None:
    """Write a trained teacher as a pipeline in half precision."""
    pipe = PIPELINES[name](shared, emojis, checkpoint)
    pipe.to(dtype=torch.float16).save_pretrained(folder)
    # diffusers leaves out parts that are None; whoever loads the pipeline has to name them (see judge.load)
    index = json.loads((folder / "model_index.json").read_text())
    absent = {part: [None, None] for part in pipe.components if part not in index}
    (folder / "model_index.json").write_text(json.dumps(index | absent, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("judge", *PIPELINES))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--run", type=Path, default=HERE / "cache" / "run")
    parser.add_argument("--cache", type=Path, default=HERE / "cache")
    parser.add_argument("--init", type=Path, help="as in training")
    parser.add_argument("--names", type=int, help="as in training")
    args = parser.parse_args()
    emojis, pixels = data.everything(args.cache, args.names)
    words: CLIPTokenizer = data.tokenizer(emojis, (args.init or args.run) / "tokenizer")
    shared = parts.load(args.run, words, args.init)
    if args.what == "judge":
        return save_judge(args.folder, shared)
    save(args.what, args.folder, shared, emojis, args.run / f"{args.what}.safetensors")
    if args.what == "b":
        return save_classes(args.folder, shared, emojis, pixels)
    taught = torch.tensor([e.split != emoji.NAMES for e in emojis])
    held_out = listed(emojis, emoji.PAIRS)
    held_out = image_features(pixels[list(held_out.values())], shared.judge)
    save_reference(args.folder, shared.judge, pixels[taught], held_out=held_out)
    return save_lists(args.folder, emojis)


if __name__ == "__main__":
    main()
