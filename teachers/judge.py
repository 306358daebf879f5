"""Measure a teacher on held-out prompts: `python teachers/judge.py FOLDER`.

Prompts are those of split (a), a name and a style never seen together, each name seen in other styles. Told are, for
each scale, how often the judge picks the right prompt for a picture among 64 of different names, and the Frechet
distance of the pictures to all real ones in the judge's features; then the same of the real pictures of those prompts
(the ceiling), and of what the autoencoder makes of them. The judge is the bundled one, or one that `--judge` names.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

import autoencoder
import clip
import data
import emoji
import parts
from export import class_features, image_features, text_features
from guidefold.demo import bundle
from guidefold.evaluation.metrics import frechet_distance
from train import HERE

EMPTY_TOKENS = 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--judge", type=Path, default=bundle.JUDGE, help="an exported judge")
    parser.add_argument("--cache", type=Path, default=HERE / "cache")
    parser.add_argument("--split", choices=(emoji.PAIRS, emoji.NAMES), default=emoji.PAIRS)
    parser.add_argument("--styles", nargs="+", help="only prompts in these styles")
    parser.add_argument("--names", type=int, help="as in training")
    parser.add_argument("--count", type=int, default=256, help="how many prompts")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--scales", type=float, nargs="+", default=(1.0, 2.0, 3.0, 4.0, 6.0))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, help="a folder for the figures and a grid of pictures")
    return parser.parse_args()


def prompted(emojis: list[emoji.Emoji], split: str, styles: list[str] | None) -> list[int]:
    """Return pictures of one split in an order that depends on their captions alone, one of each name and style."""
    wanted = [i for i, e in enumerate(emojis) if e.split == split and (not styles or e.style in styles)]
    first = [wanted[group[0]] for group in emoji.groups([emojis[i] for i in wanted])]
    return sorted(first, key=lambda index: emoji.share(emojis[index].caption))


def load(folder: Path, device: str) -> DiffusionPipeline:
    """Return an exported teacher in float32."""
    index = json.loads((folder / "model_index.json").read_text())
    # what a pipeline does without has to be passed: StableDiffusion3Pipeline insists on its third encoder
    absent = {part: None for part, value in index.items() if value == [None, None]}
    pipe = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32, **absent)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


@torch.no_grad()
def drawn(pipe: DiffusionPipeline, chosen: list[emoji.Emoji], scale: float, steps: int) -> Tensor:
    """Return a teacher's pictures uint8 [N, 3, 64, 64] of prompts, the same noise at every scale."""
    found = []
    for start in range(0, len(chosen), 64):
        generator = torch.Generator().manual_seed(start)
        some = told(pipe, chosen[start : start + 64])
        output = pipe(**some, guidance_scale=scale, num_inference_steps=steps, generator=generator, output_type="pt")
        found.append((torch.as_tensor(output.images).float().cpu() * 255).round().byte())
    return torch.cat(found)


def told(pipe: DiffusionPipeline, chosen: list[emoji.Emoji]) -> dict:
    """Return what a pipeline is called with: captions, or classes."""
    if hasattr(pipe, "get_label_ids"):
        return {"class_labels": pipe.get_label_ids([e.name.replace(",", "") for e in chosen])}
    more = {"max_sequence_length": EMPTY_TOKENS} if hasattr(pipe, "text_encoder_3") else {}
    return {"prompt": [e.caption for e in chosen], **more}


def asked(pipe: DiffusionPipeline, chosen: list[emoji.Emoji], words: CLIPTokenizer, judge: CLIPModel) -> Tensor:
    """Return the judge's text features [N, 128] of what the pipeline is told: of a class, the mean over the styles."""
    if not hasattr(pipe, "get_label_ids"):
        return text_features(data.tokens([e.caption for e in chosen], words), judge)
    return class_features([e.name for e in chosen], words, judge)


def figures(pictures: Tensor, texts: Tensor, names: list[str], real: Tensor, judge: CLIPModel) -> dict[str, float]:
    """Return top-1 of 64 and Frechet distance of pictures uint8 [N, 3, 64, 64]."""
    features = image_features(pictures, judge)
    found = {"top1": clip.accuracy(features, texts, names), "frechet": frechet_distance(features, real)}
    return {key: round(float(value), 4) for key, value in found.items()}


def grid(rows: list[Tensor], path: Path, columns: int = 16) -> None:
    """Write pictures uint8 [N, 3, 64, 64] of each row side by side."""
    lines = [torch.cat(list(row[:columns]), dim=2) for row in rows]
    Image.fromarray(np.asarray(torch.cat(lines, dim=1).permute(1, 2, 0))).save(path)


def main() -> None:
    args = parse()
    emojis, pixels = data.everything(args.cache, args.names)
    words = CLIPTokenizer.from_pretrained(args.judge / "tokenizer")
    judge, codec = clip.model(words), parts.load_codec(None, args.folder)
    clip.warm_start(judge.eval(), words, args.judge)
    pipe = load(args.folder, args.device)
    chosen = prompted(emojis, args.split, args.styles)
    if hasattr(pipe, "labels"):
        chosen = [i for i in chosen if emojis[i].name.replace(",", "") in pipe.labels]
    chosen = chosen[: args.count]
    own, names = [emojis[i] for i in chosen], [emojis[i].name for i in chosen]
    texts = asked(pipe, own, words, judge)
    real = image_features(pixels, judge)
    through = codec.decode(autoencoder.encode(pixels[chosen], codec)).sample.clamp(-1, 1)
    rows = {"real": pixels[chosen], "autoencoder": ((through + 1) * 127.5).round().byte()}
    result: dict = {"prompts": len(own), "steps": args.steps, "split": args.split}
    for scale in args.scales:
        began = time.monotonic()
        rows[f"scale {scale:g}"] = drawn(pipe, own, scale, args.steps)
        print(f"scale {scale:g}: {time.monotonic() - began:.0f} s", flush=True)
    for name, pictures in rows.items():
        result[name] = figures(pictures, texts, names, real, judge)
        print(f"{name:12} {result[name]}", flush=True)
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        grid(list(rows.values()), args.output / "grid.png")
        (args.output / "prompts.txt").write_text("".join(f"{e.caption}\n" for e in own), encoding="utf-8")
        (args.output / "figures.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
