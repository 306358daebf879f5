"""What an adapter is conditioned on: guidance scale, timestep and whatever condition the denoiser itself receives."""

import math
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Self

import torch
from torch import Tensor, nn

from guidefold.adapters.scales import numberless
from guidefold.adapters.targets import find_output
from guidefold.arguments import arguments_of
from guidefold.denoiser import Call
from guidefold.errors import InputError, ModelError

SCALE_FEATURES = 16
TIME_FEATURES = 64
QUERIES = 4


NEGATIVE = "negative."  # before the names of a negative prompt's conditions


@dataclass(frozen=True, kw_only=True)
class ConditionSpec:
    """A denoiser's conditions by argument name: tokens and vectors with their width, labels with their count.

    `dials` are the pipeline's guidance scales with the values at which each does nothing; see `capture.switch`.
    """

    tokens: dict[str, int]
    vectors: dict[str, int]
    labels: dict[str, int]
    timestep: str
    timestep_scale: float  # what brings timesteps to the range 0 to 1000
    dials: tuple[tuple[str, float], ...] = (("guidance_scale", 1.0),)
    anchors: int = 1  # how many of the dials, the first ones, turn guidance off together
    guider: bool = False
    denoiser: str | None = None  # the pipeline's component, where it has several
    output: str | None = None  # the layer that makes the prediction; see `targets.find_output`

    def __post_init__(self) -> None:
        object.__setattr__(self, "dials", tuple((str(name), float(off)) for name, off in self.dials))
        if not (math.isfinite(self.timestep_scale) and self.timestep_scale > 0):
            raise InputError(f"timestep_scale is {self.timestep_scale}; it must be a finite number above 0")
        for name, off in self.dials:
            if not math.isfinite(off):
                raise InputError(f"the scale {name} is off at {off}; it must be a finite number")
        if not isinstance(self.anchors, int) or not 1 <= self.anchors <= len(self.dials):
            raise InputError(f"anchors is {self.anchors!r}; it must be a whole number from 1 to {len(self.dials)}")

    @property
    def offs(self) -> dict[str, float]:
        """The dials' names with the values at which they do nothing, the guidance scale first."""
        return dict(self.dials)

    @property
    def negative(self) -> bool:
        """Whether the adapter is conditioned on negative prompts too."""
        return any(name.startswith(NEGATIVE) for name in (*self.tokens, *self.vectors))

    @classmethod
    def observe(cls, denoiser: nn.Module, call: Call, /, *, negative: bool = False, **more: Any) -> Self:
        """Read the conditions off a call at the first, noisiest step, which is run once more."""
        tokens, vectors, labels = {}, {}, {}
        for name, value in conditions_of(call).items():
            if name in (call.latents, call.timestep) or "mask" in name:
                continue
            if value.dim() == 3 and value.is_floating_point():
                tokens[name] = value.shape[2]
            elif value.dim() == 2 and value.is_floating_point():
                vectors[name] = value.shape[1]
            elif value.dim() == 1 and not value.is_floating_point():
                count = label_count(denoiser) if "class" in name or "label" in name else 0
                # whole numbers that are not known to be labels are sizes, rates or levels
                (labels if count else vectors)[name] = count or 1
        if negative:
            tokens |= {f"{NEGATIVE}{name}": width for name, width in tokens.items()}
            vectors |= {f"{NEGATIVE}{name}": width for name, width in vectors.items()}
        times = call.tensors[call.timestep].float()
        largest = 1000.0 if numberless(times) else float(times.max())
        scale = 1.0 if largest > 1 else 1000.0
        more |= {"output": find_output(denoiser, arguments_of(call.tensors, call.static))}
        return cls(
            tokens=tokens, vectors=vectors, labels=labels, timestep=call.timestep, timestep_scale=scale, **more
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def unseeing(self) -> Self:
        """Return the same spec without the prompt and what else comes with it; negative prompts stay."""
        kept = [
            {name: width for name, width in names.items() if name.startswith(NEGATIVE)}
            for names in (self.tokens, self.vectors, self.labels)
        ]
        return replace(self, tokens=kept[0], vectors=kept[1], labels=kept[2])


def conditions_of(call: Call) -> dict[str, Tensor]:
    """Return a call's tensors with a row per image; sequences in a list become one, padded, with its mask.

    Of sequences with several rows per image, such as one for each frame, the first is taken. What comes in a tuple,
    such as rotary embeddings or a ControlNet's residuals, is no condition.
    """
    result: dict[str, Tensor] = {}
    for name, value in call.tensors.items():
        if name == call.timestep or (value.dim() and value.shape[0] == call.rows and name[-1] not in ")]"):
            result[name] = value
        elif value.dim() == 3 and value.shape[0] % call.rows == 0 and name[-1] not in ")]":
            result[name] = value[:: value.shape[0] // call.rows]
    if call.latents.endswith("]"):
        for stem, items in lists_of(call).items():
            result[stem] = nn.utils.rnn.pad_sequence(items, batch_first=True)
            lengths = torch.tensor([len(item) for item in items], device=items[0].device)
            result[f"{stem}_mask"] = torch.arange(result[stem].shape[1], device=lengths.device) < lengths[:, None]
    return result


def lists_of(call: Call) -> dict[str, list[Tensor]]:
    """Return the sequences [T, D] that come in a list with one for each image, by the list's name."""
    found: dict[str, list[Tensor]] = {}
    for name, value in call.tensors.items():
        if name.endswith("]") and value.dim() == 2:
            found.setdefault(name.rpartition(".")[0], []).append(value)
    return {stem: items for stem, items in found.items() if len(items) == call.rows}


def noisiest(timestep: Tensor, rows: int) -> Tensor:
    """Return one timestep per image [B] of a scalar, of one per image or of several, for frames or tokens."""
    flat = timestep.reshape(-1)
    if rows % flat.shape[0] and flat.shape[0] % rows:
        raise ModelError("the denoiser packs its inputs without a row per image; such a denoiser cannot be adapted yet")
    return flat.expand(rows) if flat.shape[0] == 1 else flat.reshape(rows, -1).amax(1)


def label_count(denoiser: nn.Module) -> int:
    """Return the number of class labels, counting the one for no class; 0 where the config does not say."""
    config: Any = getattr(denoiser, "config", {})
    counts = (config.get(key) for key in ("num_class_embeds", "num_embeds_ada_norm"))
    return next((count + 1 for count in counts if count), 0)


def scale_code(guidance_scale: Tensor) -> Tensor:
    """Encode scales [B] as [B, 16], smoothly: nearby scales have nearby codes, so unseen ones interpolate."""
    u = guidance_scale.float().clamp(min=0.1).log()
    waves = torch.arange(1, SCALE_FEATURES // 2, device=u.device) * (math.pi / 4)
    angles = u[:, None] * waves
    return torch.cat(
        [u[:, None], 1 / guidance_scale.float().clamp(min=0.1)[:, None], angles.sin(), angles.cos()], dim=1
    )


def time_code(timestep: Tensor) -> Tensor:
    """Encode timesteps [B] in 0..1000 as [B, 64] (sinusoids, Vaswani et al. 2017)."""
    make = waves.__wrapped__ if numberless(timestep) else waves  # what has no numbers must not be found again
    angles = timestep.float()[:, None] * make(timestep.device)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


@lru_cache(maxsize=8)
def waves(device: torch.device) -> Tensor:
    """Return the angular frequencies of `time_code`, made once for each device."""
    half = TIME_FEATURES // 2
    with torch.inference_mode(False):  # they are used with gradients too
        return torch.exp(-math.log(10_000) * torch.arange(half, device=device) / half)


def compressed(vector: Tensor) -> Tensor:
    """Bring embeddings of around 1 and sizes of thousands of pixels to one order of magnitude, and keep their order.

    A layer norm would not do: it makes an image size the same at every resolution, and a constant vector zero.
    """
    vector = vector.float()
    return vector.sign() * vector.abs().log1p()


class Gradual(nn.Linear):
    """A linear layer that starts at zero and sees its inputs divided by the fourth root of their number.

    Conditions are wide, and what an optimizer's first steps make of a wide input is mostly noise: with random weights,
    at full rate, a short training ended further from the teacher than one that saw no prompt. Divided by the square
    root it learnt too late what the prompt is good for, on a model where that is much.
    """

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input * self.in_features**-0.25)


class TokenPool(nn.Module):
    """Pool tokens [B, T, D] to [B, W] with a few learned queries."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, QUERIES)
        self.out = Gradual(QUERIES * dim, width)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        tokens = self.norm(tokens)
        scores = self.query(tokens)
        if mask is not None:
            scores = scores.masked_fill(~mask.bool()[..., None], -1e4)
        pooled = torch.einsum("btq,btd->bqd", scores.softmax(dim=1), tokens)
        return self.out(pooled.flatten(1))


class ConditionEncoder(nn.Module):
    """One encoder shared by all targets: (guidance scale, timestep, conditions) to a code [B, W].

    `guidance_scale` is [B], or [B, D] for D dials. `known` is what `standing` gave for these scales and conditions.
    """

    def __init__(self, spec: ConditionSpec, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.scale = nn.Linear(SCALE_FEATURES * len(spec.offs), width)
        self.time = nn.Linear(TIME_FEATURES, width)
        self.pools = nn.ModuleList(TokenPool(dim, width) for dim in spec.tokens.values())
        self.vectors = nn.ModuleList(Gradual(dim, width) for dim in spec.vectors.values())
        # zeros, so that a label that no trajectory had says nothing
        tables = [
            nn.Embedding.from_pretrained(torch.zeros(count, width), freeze=False) for count in spec.labels.values()
        ]
        self.labels = nn.ModuleList(tables)
        self.mix = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, guidance_scale: Tensor, tensors: dict[str, Tensor], known: Tensor | None = None) -> Tensor:
        rows = guidance_scale.shape[0]
        timestep = noisiest(tensors[self.spec.timestep], rows)
        if self.spec.timestep_scale != 1:
            timestep = timestep * self.spec.timestep_scale
        standing = self.standing(guidance_scale, tensors) if known is None else known
        return self.mix(self.time(time_code(timestep).to(self.time.weight.dtype)) + standing)

    def standing(self, guidance_scale: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        """Return the part of the code [B, W] that is the same at every step."""
        rows, dtype = guidance_scale.shape[0], self.scale.weight.dtype
        scales = torch.cat([scale_code(dial) for dial in guidance_scale.reshape(rows, -1).unbind(1)], dim=1)
        parts = [self.scale(scales.to(dtype))]
        for pool, name in zip(self.pools, self.spec.tokens, strict=True):
            parts.append(pool(tensors[name].to(dtype), mask_of(name, tensors)))
        for vector, name in zip(self.vectors, self.spec.vectors, strict=True):
            parts.append(vector(compressed(tensors[name].reshape(rows, -1)).to(dtype)))
        for label, name in zip(self.labels, self.spec.labels, strict=True):
            parts.append(label(tensors[name]))
        return sum(parts[1:], parts[0])  # pyright: ignore[reportReturnType]


def mask_of(name: str, tensors: dict[str, Tensor]) -> Tensor | None:
    """Return the attention mask [B, T] that goes with a token sequence, if the denoiser was given one."""
    stem = name.removesuffix("_hidden_states")
    mask = next(
        (tensors[key] for key in (f"{stem}_attention_mask", f"{name}_mask", f"{stem}_mask") if key in tensors), None
    )
    return mask if mask is not None and mask.dim() == 2 and mask.shape[1] == tensors[name].shape[1] else None
