"""Train one part of the teachers at a time, resumable at any point: `python teachers/train.py STAGE`.

Stages: clip (the judge: both towers), autoencoder, then the teachers a (UNet), b (DiT), c (joint attention), in any
order; `export.py` writes a teacher as a pipeline, `judge.py` measures it. Pictures come from npm packages and need
`npm` and `pip install resvg-py`; they are drawn once.

On a CPU: `OMP_NUM_THREADS=1 nice python teachers/train.py a --names 300 --minutes 90`, again and again: each run goes
on where the last one stopped, also after SIGTERM. The rate is constant, so there is no end to plan for; when it is good
enough, `--finish 200` takes that many more steps while the rate falls to zero. On a CPU all is float32: bfloat16
without hardware for it is 20 times slower.

On a GPU (bfloat16 autocast) minutes are enough: `gpu.sh` does everything within a given time, from the file that
`pack.py` writes. `--init FOLDER` goes on from an exported teacher A, on another machine say, with its autoencoder
unless this run trains another. Judge and autoencoder are the bundled ones where this run has trained none.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import CLIPTokenizer

import autoencoder
import clip
import data
import dit
import emoji
import parts
import sd3
import unet
from conditions import Texts
from guidefold.demo import bundle
from loop import Plan, taken

HERE = Path(__file__).parent
ENDLESS = 10_000_000
PLANS = {
    "clip": Plan(steps=100, batch=192, peak=1e-3, warm=10, cooldown=50, decay=0.98, weight_decay=0.1),
    "autoencoder": Plan(steps=240, batch=16, peak=7e-4, warm=15, cooldown=100, decay=0.98),
    "a": Plan(steps=ENDLESS, batch=64, peak=1e-3, warm=100, decay=0.999, orthogonal=True),
    "b": Plan(steps=ENDLESS, batch=64, peak=2e-3, warm=100, decay=0.999, orthogonal=True),
    "c": Plan(steps=ENDLESS, batch=64, peak=2e-3, warm=100, decay=0.999, orthogonal=True),
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=PLANS)
    parser.add_argument("--run", type=Path, default=HERE / "cache" / "run", help="checkpoints and logs")
    parser.add_argument("--cache", type=Path, default=HERE / "cache", help="packages, pictures and latents")
    parser.add_argument("--init", type=Path, help="an exported teacher A to go on from")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", type=torch.device)
    parser.add_argument("--locked", action="store_true", help="clip: keep the image tower of the bundled judge")
    for name, kind in {"steps": int, "batch": int, "cooldown": int, "peak": float, "minutes": float}.items():
        parser.add_argument(f"--{name}", type=kind)
    parser.add_argument("--names", type=int, help="learn the names that most styles have drawn, and no others")
    parser.add_argument("--finish", type=int, help="take so many more steps, over which the rate falls to zero")
    return parser.parse_args()


def plan_of(args: argparse.Namespace) -> Plan:
    """Return the stage's plan with what the command line changes of it."""
    names = ("steps", "batch", "cooldown", "peak", "minutes")
    plan = replace(PLANS[args.stage], **{n: getattr(args, n) for n in names if getattr(args, n) is not None})
    if not args.finish:
        return plan
    return replace(plan, steps=taken(args.run / f"{args.stage}.safetensors") + args.finish, cooldown=args.finish)


def train_judge(train: data.Data, words: CLIPTokenizer, args: argparse.Namespace) -> None:
    judge = clip.model(words)
    clip.warm_start(judge, words, bundle.JUDGE)
    if args.locked:
        clip.lock(judge)
    clip.train(train.pixels, train.ids, train.groups, judge.to(args.device), args.run, plan_of(args))


def train_codec(train: data.Data, args: argparse.Namespace) -> None:
    codec = parts.load_codec(None).to(args.device)
    codec = autoencoder.train(train.pixels, codec, args.run, plan_of(args))
    spread = autoencoder.encode(train.pixels[::100], codec).std().item()
    (args.run / "scaling_factor.txt").write_text(f"{1 / spread}\n")


def train_teacher(train: data.Data, words: CLIPTokenizer, args: argparse.Namespace) -> None:
    shared = parts.load(args.run, words, args.init, args.device)
    latents, plan = data.latents(train.pixels, shared.codec, args.cache), plan_of(args)
    texts = Texts(ids=train.ids, none=data.tokens([""], words)[0], groups=train.groups)
    if args.stage == "a":
        teacher = unet.Teacher(shared.tower)
        if args.init:
            states = load_file(args.init / "unet" / "diffusion_pytorch_model.safetensors")
            teacher.unet.load_state_dict({key: value.float() for key, value in states.items()})
        unet.train(latents, texts, teacher.to(args.device), args.run, plan)
    elif args.stage == "b":
        dit.train(latents, train.emojis, train.groups, dit.model().to(args.device), args.run, plan)
    else:
        sd3.train(latents, texts, sd3.Teacher(words).to(args.device), args.run, plan)


def main() -> None:
    args = parse()
    torch.manual_seed(0)
    args.run.mkdir(parents=True, exist_ok=True)
    emojis, pixels = data.everything(args.cache, args.names)
    words = data.tokenizer(emojis, (args.init or args.run) / "tokenizer")
    train = data.part(emoji.TRAIN, emojis, pixels, words)
    if args.stage == "clip":
        train_judge(train, words, args)
    elif args.stage == "autoencoder":
        train_codec(train, args)
    else:
        train_teacher(train, words, args)


if __name__ == "__main__":
    main()
