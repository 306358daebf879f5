"""Arguments of a pipeline's call that shape guidance: followed where the adapter knows them, else told."""

import inspect
import json
import re
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from guidefold.acting.acting import Acting
    from guidefold.capture.switch import Switch

SHAPES = re.compile(r"guidance|cfg|zero_init|modality_scale|^(pag|stg|sag)_|_stg_")
# a ControlNet's schedule reaches the denoiser as its residuals, an embedded guidance as an input of its own
REACH = re.compile(r"^control_guidance_|^distilled_guidance")
EMBEDS = "ip_adapter_image_embeds"


def shaping(parameters: Mapping[str, inspect.Parameter]) -> list[str]:
    """Return the arguments of a call that shape guidance, by their names."""
    embedded = {"guidance_scale"} if "true_cfg_scale" in parameters else set()
    return [name for name in parameters if SHAPES.search(name) and not REACH.search(name) and name not in embedded]


def shaped(pipe: Any, arguments: Mapping[str, Any], dials: Iterable[str]) -> dict[str, Any]:
    """Return what guidance was shaped by when it was recorded, besides its dials: an adapter keeps it."""
    parameters = inspect.signature(type(pipe).__call__).parameters
    given = {name: arguments.get(name, parameters[name].default) for name in shaping(parameters) if name not in dials}
    if "negative_prompt" in arguments:
        given["negative_prompt"] = arguments["negative_prompt"]
    return {name: plain(value) for name, value in given.items() if value is not inspect.Parameter.empty}


def plain(value: Any) -> Any:
    """Return a value as JSON gives it back; of what JSON does not know, its text."""
    return json.loads(json.dumps(value.tolist() if isinstance(value, Tensor) else value, default=str))


def warn_of_arguments(pipe: Any, arguments: Mapping[str, Any], active: "Mapping[Acting, Switch]") -> None:
    """Warn of every argument that would shape guidance and has no effect, because the adapter was trained otherwise."""
    parameters = inspect.signature(type(pipe).__call__).parameters
    dials = {dial.name for switch in active.values() for dial in switch.dials}
    trained = {name: value for adapter in active for name, value in adapter.trained.get("arguments", {}).items()}
    for name in shaping(parameters):
        if name in dials or name not in arguments:
            continue
        value, known = plain(arguments[name]), trained.get(name, plain(parameters[name].default))
        if value != known and not (value in (None, 0, False) and known in (None, 0, False)):
            warn(
                f"{name} {shown(value)} is ignored: the adapter was trained with {shown(known)}; train one with that "
                "value or with a dial for it, or use disabled()"
            )
    warn_of_unguided(pipe, arguments, dials, trained)


def warn_of_unguided(pipe: Any, arguments: Mapping[str, Any], dials: set[str], trained: Mapping[str, Any]) -> None:
    """Warn where the pipeline itself would not guide: true CFG without a negative prompt."""
    given = [arguments.get(name) for name in ("negative_prompt", "negative_prompt_embeds")]
    asks = "true_cfg_scale" in dials and "negative_prompt" in arguments and (arguments["true_cfg_scale"] or 0) > 1
    if asks and all(value is None for value in given) and "negative_prompt" not in trained:
        warn(
            f"{type(pipe).__name__} would not guide without a negative_prompt; the adapter does, at true_cfg_scale "
            f"{shown(arguments['true_cfg_scale'])}; give true_cfg_scale 1 for none"
        )


def shown(value: Any) -> str:
    """Return a value for a line of text."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def warn(text: str) -> None:
    warnings.warn(text, stacklevel=7)


def positive_embeds(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return image embeddings that were doubled for guidance without their negative half, as an argument to replace."""
    embeds = arguments.get(EMBEDS)
    if not isinstance(embeds, (list, tuple)) or not all(isinstance(one, Tensor) and one.dim() > 1 for one in embeds):
        return {}
    # with guidance on, pipelines take the first half for the negative
    return {EMBEDS: [one.chunk(2)[1] if len(one) % 2 == 0 else one for one in embeds]}
