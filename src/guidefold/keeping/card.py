"""Model cards: what a README of the Hub says of an adapter or a group; a stranger's texts are escaped in it."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guidefold.keeping.adapter import Adapter
from guidefold.texts import visible

if TYPE_CHECKING:
    from guidefold.keeping.group import AdapterGroup

CARD = """---
library_name: guidefold
tags: [guidefold, adapter-guidance-distillation, diffusers]
{base_line}---
# Guidance folded into one forward pass

Base model: {base}. This adapter predicts its classifier-free guidance in one forward pass a sampling step instead of
two, for guidance scales from {low:g} to {high:g}.

```python
import guidefold

adapter = guidefold.load({name}).attach(pipe)
image = pipe("a prompt", guidance_scale={middle:g}).images[0]
```

| | |
|---|---|
| design | {design}, rank {rank}, {targets} targets |
| parameters | {parameters:,} |
| trained on | {source} states, {steps} steps{before}{merged} |
| guidance recovered on held-out conditions | {recovered} |

Method: adapter guidance distillation (Perez Jensen & Sadat, arXiv 2503.07274). Made with guidefold {version}.
"""


def model_card(adapter: Adapter, name: str) -> str:
    """Return the README of an adapter."""
    from guidefold import __version__

    trained = adapter.trained
    low, high = trained.get("scale_min", 1.0), trained.get("scale_max", 1.0)
    recovered = trained.get("recovered")
    return CARD.format(
        base=marked(trained.get("base") or "an unnamed base model"),
        base_line=base_line(trained.get("base")),
        low=low,
        high=high,
        middle=round((low + high) / 2, 1),
        name=json.dumps(visible(name).replace("`", "'"), ensure_ascii=False),
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
