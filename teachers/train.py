"""Build the bundled teacher from public emoji pictures: `python teachers/train.py`, resumable at any point.

Stages: clip (both towers), autoencoder, unet, export (fp16 pipeline, image judge, reference features, prompt lists).
On a GPU give more steps, e.g. `--clip-steps 3000 --autoencoder-steps 20000 --unet-steps 100000 --unet-batch 256`.
"""

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from torch import Tensor
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

import autoencoder
import clip
import emoji
import export
import unet

HERE = Path(__file__).parent
STAGES = ("clip", "autoencoder", "unet", "export")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=HERE / "cache" / "run", help="checkpoints and logs")
    parser.add_argument("--output", type=Path, default=HERE.parent / "src" / "guidefold" / "demo" / "teacher")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--clip-steps", type=int, default=450)
    parser.add_argument("--autoencoder-steps", type=int, default=1350)
    parser.add_argument("--unet-steps", type=int, default=2500)
    parser.add_argument("--unet-batch", type=int, default=64)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    return parser.parse_args()


@torch.no_grad()
def text_states(captions: list[str], words: CLIPTokenizer, tower: CLIPTextModel) -> Tensor:
    """Return the text encoder's last states [N, T, D], as the pipeline hands them to the denoiser."""
    tokens = words(captions, padding="max_length", return_tensors="pt").input_ids.to(tower.device)
    return torch.cat([tower(chunk)[0].cpu() for chunk in tokens.split(256)])


def text_tower(judge: CLIPModel) -> CLIPTextModel:
    tower = CLIPTextModel(judge.config.text_config)
    states = {k.removeprefix("text_model."): v for k, v in judge.state_dict().items() if k.startswith("text_model.")}
    own = tower.state_dict()
    tower.load_state_dict({k: states[k.removeprefix("text_model.")] for k in own})
    return tower.eval()


def train_judge(pixels: Tensor, captions: list[str], words: CLIPTokenizer, args: argparse.Namespace) -> CLIPModel:
    tokens = words(captions, padding="max_length", return_tensors="pt").input_ids
    steps = args.clip_steps if "clip" in args.stages else 0
    return clip.train(pixels, tokens, clip.model(words).to(args.device), args.run, steps=steps, batch=192)


def train_codec(pixels: Tensor, args: argparse.Namespace) -> AutoencoderTiny:
    steps = args.autoencoder_steps if "autoencoder" in args.stages else 0
    codec = autoencoder.train(pixels, autoencoder.model().to(args.device), args.run, steps=steps, batch=32)
    codec.register_to_config(scaling_factor=1 / autoencoder.encode(pixels[:1024], codec).std().item())
    return codec


def train_denoiser(pixels: Tensor, captions: list[str], words: CLIPTokenizer, tower: CLIPTextModel, codec, args):
    denoiser = unet.model().to(args.device)
    steps = args.unet_steps if "unet" in args.stages else 0
    latents = autoencoder.encode(pixels, codec) * codec.config.scaling_factor
    states, empty = text_states(captions, words, tower), text_states([""], words, tower)[0]
    return unet.train(latents, states, empty, denoiser, args.run, steps=steps, batch=args.unet_batch)


def main() -> None:
    args = parse()
    torch.manual_seed(0)
    everything = emoji.load(HERE / "cache")
    seen = [e for e in everything if not e.held_out]
    pixels, captions = emoji.pixels(seen), [e.caption for e in seen]
    words = clip.tokenizer(captions)
    judge = train_judge(pixels, captions, words, args)
    tower = text_tower(judge).to(args.device)
    codec = train_codec(pixels, args)
    if not {"unet", "export"} & set(args.stages):
        return
    denoiser = train_denoiser(pixels, captions, words, tower, codec, args)
    if "export" in args.stages:
        export.save(args.output, everything, words, judge, tower, codec, denoiser)


if __name__ == "__main__":
    main()
