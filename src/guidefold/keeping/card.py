"""Model cards: what a README of the Hub says of an adapter or a group; a stranger's texts are escaped in it."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guidefold.keeping.adapter import Adapter
from guidefold.texts import visible

if TYPE_CHECKING:
    from guidefold.keeping.group import AdapterGroup

CARD = """---
library_name: guidefold
tags: [guidefold, adapter-guidance-distillation, diffusers]
inference: false
{base_line}{more}---
# Guidance folded into one forward pass

Base model: {base}. This adapter predicts its classifier-free guidance in one forward pass a sampling step instead of
two, {scales}.
{pictures}
```python
import guidefold
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained({base_name})
adapter = guidefold.load({name}).attach(pipe)
{made} = pipe({told}, {dial}={middle:g}).{kind}[0]
```

| | |
|---|---|
| design | {design}, rank {rank}, {targets} targets |
| parameters | {parameters:,} |
| trained on | {source} states, {steps} steps{before}{merged} |
| guidance recovered on held-out trajectories | {recovered} |
{figures}
Licence: {licence}

Method: adapter guidance distillation (Perez Jensen & Sadat, arXiv 2503.07274). Made with guidefold {version}.
"""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a card shows beside the adapter itself: Markdown of its pictures and figures, and the base's licence."""

    pictures: str = ""
    figures: str = ""
    kind: str = "images"  # what the pipeline makes: "images", "frames" or "audios"
    prompt: str = "a prompt"
    licence: dict[str, str] = field(default_factory=dict)  # the front matter's keys: license, license_link, ...


MADE = {"images": ("image", "text-to-image"), "frames": ("film", "text-to-video"), "audios": ("sound", "text-to-audio")}


def model_card(adapter: Adapter, name: str, shown: Shown | None = None) -> str:
    """Return the README of an adapter."""
    from guidefold import __version__

    trained, made = adapter.trained, MADE[shown.kind if shown else "images"]
    more = f"pipeline_tag: {made[1]}\n" if shown else ""
    shown = shown or Shown()
    more += "".join(f"{key}: {json.dumps(visible(value))}\n" for key, value in shown.licence.items())
    low, high = trained.get("scale_min", 1.0), trained.get("scale_max", 1.0)
    recovered = trained.get("recovered")
    return CARD.format(
        base=marked(trained.get("base") or "an unnamed base model"),
        base_line=base_line(trained.get("base")),
        base_name=quoted(trained["base"] if base_line(trained.get("base")) else "folder of the base model"),
        more=more,
        made=made[0],
        kind=shown.kind,
        told=told_to(adapter, shown.prompt),
        dial=next(iter(adapter.spec.offs)),
        pictures=f"\n{shown.pictures}\n" if shown.pictures else "",
        figures=f"\n{shown.figures}\n" if shown.figures else "",
        licence=f"that of the base model, {marked(shown.licence['license'])}."
        if "license" in shown.licence
        else "that of the base model, which its own page tells.",
        scales=f"at guidance scale {low:g}" if low == high else f"for guidance scales from {low:g} to {high:g}",
        middle=round((low + high) / 2, 1),
        name=quoted(name),
        design=adapter.config.design,
        rank=adapter.config.rank,
        targets=len(adapter.shapes),
        parameters=adapter.parameter_count(),
        source=marked(trained.get("source") or "no"),
        steps=marked(trained.get("steps", 0)),
        before=f", after {marked(earlier)} of the adapter it started from"
        if (earlier := trained.get("steps_before"))
        else "",
        merged=f", mean of {marked(trained['merged'])} adapters" if "merged" in trained else "",
        recovered="not measured" if recovered is None else f"{recovered:.1%}",
        version=__version__,
    )


def told_to(adapter: Adapter, prompt: str) -> str:
    """Return the argument that says what to make: a prompt, or where there are none a class label."""
    spec = adapter.spec
    if not spec.labels or spec.tokens or spec.vectors:
        return quoted(prompt)
    return f"class_labels=[{prompt if prompt.isdecimal() else 1}]"


def quoted(text: str) -> str:
    """Return a text as Python writes it, with nothing that would end a block of code."""
    return json.dumps(visible(text).replace("`", "'"), ensure_ascii=False)


def base_line(base: Any) -> str:
    """Return the front matter's line of a base model on the Hub, or nothing for what is no name there."""
    named = isinstance(base, str) and re.fullmatch(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", base, re.ASCII)
    return f"base_model: {base}\n" if named and not Path(base).exists() else ""


def marked(text: object) -> str:
    """Return a text that Markdown shows as it is."""
    plain = re.fullmatch(r"[\w./ -]*", str(text))
    return str(text) if plain else re.sub(r"([\\`*_{}\[\]<>()#|!~&])", r"\\\1", visible(text))


def group_card(group: "AdapterGroup", name: str) -> str:
    """Return the README of a group: the front matter and the first lines of its first adapter's, and what there is."""
    card, _, _ = model_card(next(iter(group.adapters.values())), name).partition("| | |\n")
    members = "\n".join(f"- [{part}]({part}/README.md)" for part in group.adapters)
    return f"{card}It has an adapter for each denoiser that guidance runs:\n\n{members}\n"
