"""Write prompts nobody has seen, made up from those of training: `python teachers/prompts.py 8192 runs/invented.txt`.

An adapter that has been trained on few prompts folds guidance less well into others. Trajectories need no pictures, so
prompts can be invented: the words of two names joined, or words made of the halves of two words, in a style and skin
tone of the bundled teacher. No name of the held-out prompts is among them.
"""

import argparse
import random
import re
from pathlib import Path

from guidefold.demo import bundle

PARTS = re.compile(r"(?P<name>.+?)(?P<rest>(?: with [a-z ]*skin tone)?, \w+)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text("".join(f"{prompt}\n" for prompt in invented(options.count)), encoding="utf-8")


def invented(count: int) -> list[str]:
    """Return different prompts whose names are in neither the training nor the held-out prompts."""
    parts = [split(prompt) for prompt in bundle.prompts()]
    names = sorted({name for name, _ in parts})
    words = sorted({word for name in names for word in name.split()})
    tokenizer = bundle.load_teacher().tokenizer
    known = {*names, *(split(prompt)[0] for prompt in bundle.held_out_prompts())}
    chance, found = random.Random(0), dict.fromkeys([])
    while len(found) < count:
        name, rest = chance.choice(parts)
        new = joined(name, chance.choice(names), chance) if chance.random() < 0.5 else blended(name, words, chance)
        fits = len(tokenizer(f"{new}{rest}").input_ids) <= tokenizer.model_max_length
        if fits and new not in known:
            found[f"{new}{rest}"] = None
    return list(found)


def split(prompt: str) -> tuple[str, str]:
    """Return the name and what follows it: skin tone and style."""
    match = PARTS.fullmatch(prompt)
    assert match, prompt
    return match["name"], match["rest"]


def joined(one: str, other: str, chance: random.Random) -> str:
    """Return the beginning of one name and the end of another."""
    first, last = one.split(), other.split()
    return " ".join(first[: chance.randint(1, len(first))] + last[chance.randrange(len(last)) :])


def blended(name: str, words: list[str], chance: random.Random) -> str:
    """Return a name in which about half of the words are new: the beginning of one and the end of another."""

    def blend(word: str) -> str:
        other = chance.choice(words)
        return word[: chance.randint(1, len(word))] + other[chance.randrange(len(other)) :]

    return " ".join(blend(word) if chance.random() < 0.5 else word for word in name.split())


if __name__ == "__main__":
    main()
