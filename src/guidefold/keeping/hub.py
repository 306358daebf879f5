"""Adapters on disk and on the Hub: config.json, model.safetensors and a README.md; never a pickle."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from guidefold.adapters.conditions import ConditionSpec
from guidefold.config import AdapterConfig
from guidefold.errors import InputError, ModelError
from guidefold.keeping.adapter import Adapter
from guidefold.keeping.group import INDEX, AdapterGroup

FORMAT = 1
WEIGHTS = "model.safetensors"
BUNDLED = "bundled"  # the adapter that comes with guidefold, for the bundled teacher
BUNDLED_FOLDER = Path(__file__).parents[1] / "demo" / "adapter"

CARD = """---
library_name: guidefold
tags: [guidefold, adapter-guidance-distillation, diffusers]
{base_line}---
# Guidance folded into one forward pass

Base model: {base}. This adapter predicts its classifier-free guidance in one forward pass a sampling step instead of
two, for guidance scales from {low:g} to {high:g}.

```python
import guidefold

adapter = guidefold.load("{name}").attach(pipe)
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


def describe(adapter: Adapter) -> dict[str, Any]:
    """Return what config.json says."""
    from guidefold import __version__

    return {
        "format": FORMAT,
        "guidefold": __version__,
        "adapter": adapter.config.to_dict(),
        "spec": adapter.spec.to_dict(),
        "shapes": {name: list(shape) for name, shape in adapter.shapes.items()},
        "trained": adapter.trained,
    }


def model_card(adapter: Adapter, name: str) -> str:
    """Return the README of an adapter."""
    from guidefold import __version__

    trained = adapter.trained
    low, high = trained.get("scale_min", 1.0), trained.get("scale_max", 1.0)
    base = trained.get("base", "an unnamed base model")
    recovered = trained.get("recovered")
    return CARD.format(
        base=base,
        base_line=f"base_model: {base}\n" if "/" in base and not Path(base).exists() else "",
        low=low,
        high=high,
        middle=round((low + high) / 2, 1),
        name=name,
        design=adapter.config.design,
        rank=adapter.config.rank,
        targets=len(adapter.shapes),
        parameters=adapter.parameter_count(),
        source=trained.get("source", "no"),
        steps=trained.get("steps", 0),
        before=f", after {earlier} of the adapter it started from" if (earlier := trained.get("steps_before")) else "",
        merged=f", mean of {trained['merged']} adapters" if "merged" in trained else "",
        recovered="not measured" if recovered is None else f"{recovered:.1%}",
        version=__version__,
    )


def save_pretrained(adapter: Adapter, folder: str | Path, *, dtype: torch.dtype | None = None, name: str = "") -> Path:
    """Write an adapter to a folder; every file is there completely or not at all. Raises InputError if it cannot be."""
    try:
        return write_files(adapter, Path(folder), dtype=dtype, name=name)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot write an adapter to {folder}: {error}; make room, or give another folder") from error


def write_files(adapter: Adapter, folder: Path, *, dtype: torch.dtype | None, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    weights = {key: value.detach().to("cpu", dtype).contiguous() for key, value in adapter.state_dict().items()}
    partial = folder / f"{WEIGHTS}.partial"
    save_file(weights, partial, metadata={"format": "pt"})
    partial.replace(folder / WEIGHTS)
    texts = {
        "config.json": json.dumps(describe(adapter), indent=2) + "\n",
        "README.md": model_card(adapter, name or folder.name),
    }
    for file, text in texts.items():
        partial = folder / f"{file}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.replace(folder / file)
    return folder


def find_folder(source: str | Path) -> Path:
    """Return the local folder of an adapter or a group, fetched from the Hub if it is none. Raises InputError."""
    folder = BUNDLED_FOLDER if source == BUNDLED else Path(source)
    if (folder / "config.json").exists() or (folder / INDEX).exists():
        return folder
    if folder.exists():
        raise InputError(
            f"{folder} holds no adapter: there is no config.json; give the folder that save_pretrained wrote"
        )
    try:
        return Path(snapshot_download(str(source), allow_patterns=["*config.json", f"*{WEIGHTS}", INDEX]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"no adapter at {source}: neither a folder here nor found on the Hub ({reason})") from error


def load(source: str | Path) -> Adapter | AdapterGroup:
    """Load an adapter, or the adapters of a pipeline with several denoisers. Raises InputError or ModelError."""
    folder = find_folder(source)
    return AdapterGroup.from_pretrained(folder) if (folder / INDEX).exists() else from_pretrained(folder)


def from_pretrained(source: str | Path) -> Adapter:
    """Load an adapter from a folder or the Hub, not attached to anything. Raises InputError or ModelError."""
    folder = find_folder(source)
    if (folder / INDEX).exists():
        raise InputError(f"{source} holds an adapter for each of several denoisers; use guidefold.load")
    try:
        described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if described["format"] != FORMAT:
            raise ModelError(
                f"{folder} has adapter format {described['format']}, this guidefold reads {FORMAT}; upgrade guidefold"
            )
        shapes = {key: tuple(shape) for key, shape in described["shapes"].items()}
        adapter = Adapter(AdapterConfig.from_dict(described["adapter"]), ConditionSpec(**described["spec"]), shapes)
        adapter.trained = described["trained"]
    except (OSError, KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{folder / 'config.json'} describes no adapter ({error}); save the adapter again") from error
    try:
        adapter.load_state_dict({key: value.float() for key, value in load_file(folder / WEIGHTS).items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"{folder / WEIGHTS} is missing or damaged ({reason}); fetch or save the adapter again"
        ) from error
    return adapter.eval()


@torch.no_grad()
def start_from(adapter: Adapter, source: str | Path) -> None:
    """Give an adapter the weights of a saved one; conditions and targets that are new to it start without effect.

    What it says of its training counts the saved one's steps. Raises InputError or ModelError, and ModelError where the
    saved one is of another shape.
    """
    other = from_pretrained(source)
    states = (one.state_dict() for one in (adapter, other))
    ours, theirs = ({key: value for key, value in one.items() if not of_targets(key)} for one in states)
    unlike = [name for name, value in theirs.items() if name not in ours or ours[name].shape != value.shape]
    unlike += [name for name, shape in other.shapes.items() if adapter.shapes.get(name) != shape]
    alike = adapter.config.design == other.config.design and adapter.spec.output == other.spec.output
    if unlike or not alike or adapter.config.rank != other.config.rank:
        what = unlike[0] if unlike else "design, rank or output layer"
        same = {name: value for name, value in other.config.to_dict().items() if value is not None}
        wanted = ", ".join(f"{name} {value}" for name, value in same.items())
        raise ModelError(f"cannot start from {source}: it differs in {what}; give {wanted} and the same conditions")
    new = {name: torch.zeros_like(value) for name, value in ours.items() if name not in theirs and is_last(name)}
    adapter.load_state_dict(new | theirs, strict=False)
    nn.init.zeros_(adapter.heads.weight)
    layers, places = dict(zip(adapter.shapes, adapter.layers, strict=True)), adapter.heads.rows()
    for (name, rows), layer in zip(other.heads.rows().items(), other.layers, strict=True):
        layers[name].load_state_dict(layer.state_dict())
        adapter.heads.weight[places[name]] = other.heads.weight[rows]
        adapter.heads.bias[places[name]] = other.heads.bias[rows]
    known = [other.trained[name] for name in ("steps", "steps_before") if name in other.trained]
    adapter.trained["steps_before"] = sum(known)


def of_targets(key: str) -> bool:
    """Tell whether a weight is one target's own, or has rows for all targets."""
    return key.startswith(("layers.", "heads."))


def is_last(name: str) -> bool:
    """Tell whether a weight of the condition encoder is the last on the way of its condition."""
    return name.startswith("encoder.vectors.") or (name.startswith("encoder.pools.") and ".out." in name)


def push_to_hub(adapter: Adapter | AdapterGroup, repository: str, *, private: bool = False) -> str:
    """Upload an adapter or a group to a Hub repository such as `me/sd-folded`, and return the address of the commit.

    Raises InputError where the Hub refuses it.
    """
    api = HfApi()
    with TemporaryDirectory() as folder:
        if isinstance(adapter, AdapterGroup):
            adapter.save_pretrained(folder)
            (Path(folder) / "README.md").write_text(group_card(adapter, repository), encoding="utf-8")
        else:
            save_pretrained(adapter, folder, name=repository)
        try:
            api.create_repo(repository, exist_ok=True, private=private)
            return str(api.upload_folder(repo_id=repository, folder_path=folder))
        except (HFValidationError, HfHubHTTPError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"cannot push to {repository} ({reason}); log in, or give a repository of yours"
            ) from error


def group_card(group: AdapterGroup, name: str) -> str:
    """Return the README of a group: the front matter and the first lines of its first adapter's, and what there is."""
    card, _, _ = model_card(next(iter(group.adapters.values())), name).partition("| | |\n")
    members = "\n".join(f"- [{part}]({part}/README.md)" for part in group.adapters)
    return f"{card}It has an adapter for each denoiser that guidance runs:\n\n{members}\n"
