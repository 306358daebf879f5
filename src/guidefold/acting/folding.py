"""The folded form: what an adapter changes is written into the denoiser's own parameters for one call, then taken back.

No layer does more work than in the bare model. A handful of operations write all parameters of a dtype, and as many
restore them; the parameters keep their identity and place, so that whatever else knows them (the compiler, LoRA, an
optimizer, `state_dict`) sees nothing between calls.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from guidefold.acting.finding import Find, adds, finder
from guidefold.adapters.film import positions, slots_of
from guidefold.adapters.network import Modulations, Network
from guidefold.adapters.targets import unwrapped
from guidefold.room import hooks_on

Slots = list[tuple[Find, nn.Module, str]]  # layers as they are now, the base's with its parameter's name


@dataclass
class Flat:
    """Parameters of one dtype on one device, their base values side by side, and where each one's numbers stand."""

    parameters: list[Tensor]
    base: Tensor
    written: Tensor
    chosen: Tensor  # where their gains stand among the numbers, then their shifts
    base_views: list[Tensor] = field(default_factory=list)
    written_views: list[Tensor] = field(default_factory=list)
    held: bool = False  # the base values are those that the parameters are to have again

    @property
    def values(self) -> list[Tensor]:
        # `.data`, or autograd would take parameters that are restored bit for bit for changed ones
        return [one.data for one in self.parameters]

    @classmethod
    @torch.inference_mode(False)  # buffers that were made in it could not be written outside
    def of(cls, parameters: list[Tensor], gains: list[Tensor], shifts: list[Tensor]) -> "Flat":
        like, sizes = parameters[0], [one.numel() for one in parameters]
        base, written = (torch.empty(sum(sizes), dtype=like.dtype, device=like.device) for _ in range(2))
        made = cls(parameters, base, written, torch.cat([*gains, *shifts]).to(like.device))
        for views, flat in ((made.base_views, base), (made.written_views, written)):
            parts = zip(flat.split(sizes), parameters, strict=True)
            views += [part.view(one.shape) for part, one in parts]
        return made

    def write(self, numbers: Tensor) -> None:
        """Write w (1 + g) + h into all parameters, of numbers [N + 1] whose last is 0; keep what was there."""
        # anew every time: what writes to `.data`, as merging LoRA does, leaves no trace to look for
        values = self.values
        torch._foreach_copy_(self.base_views, values)  # pyright: ignore[reportPrivateImportUsage]
        self.held = True
        gains, shifts = numbers[self.chosen].split(len(self.base))
        torch.addcmul(shifts.add_(self.base), self.base, gains, out=self.written)
        torch._foreach_copy_(values, self.written_views)  # pyright: ignore[reportPrivateImportUsage]

    def restore(self) -> None:
        if self.held:
            torch._foreach_copy_(self.values, self.base_views)  # pyright: ignore[reportPrivateImportUsage]
        self.held = False


class Folding:
    """Writes an adapter's modulations into one denoiser's parameters, and restores them."""

    def __init__(self, network: Network, denoiser: nn.Module) -> None:
        self.network = network
        self.slots: Slots = []
        self.places: list[tuple[Tensor, Tensor]] = []
        for slot in slots_of(network.shapes) if network.film is not None else ():
            spans = network.film.spans  # pyright: ignore[reportOptionalMemberAccess]
            self.slots.append(slot_of(denoiser, slot.module, slot.parameter))
            self.places.append(positions(slot, spans[slot.place], network.film.head.out_features))  # pyright: ignore[reportOptionalMemberAccess]
        self.output = network.spec.output if network.spec.output in network.shapes else None
        self.last = [slot_of(denoiser, self.output, "weight")] if self.output else []
        self.owners = owners_of(denoiser, [base for _, base, _ in [*self.slots, *self.last]])
        self.flats: list[Flat] = []
        self.known: list[tuple] = []  # which the parameters were when they were flattened
        self.kept: tuple[Tensor, Tensor] | None = None  # the output layer's weight and its base values
        self.folded = False

    def possible(self, held: int = 0) -> bool:
        """Tell whether the adapter can be folded at all: whatever it changes is a parameter, or held by a weight."""
        return self.network.film is not None and len(self.network.layers) == held + bool(self.output)

    def parameters(self, device: torch.device) -> list[Tensor] | None:
        """Return the parameters to write, or None where one cannot be written now: elsewhere, quantised, moved."""
        if any(map(is_moved, self.owners)):
            return None
        devices = {device} | {there for owner in self.owners for there, _ in hooks_on(owner)}
        slots = [*self.slots, *self.last]
        if not all(adds(find(), base) for find, base, _ in slots):
            return None
        found = [base._parameters.get(name) for _, base, name in slots]
        if not all(is_plain(value, devices) for value in found) or len(set(map(id, found))) < len(found):
            return None
        return found  # pyright: ignore[reportReturnType]

    def write(self, parameters: list[Tensor], made: Modulations, row: int = 0) -> None:
        """Write the modulations of one row; `restore` is to follow."""
        weight = parameters[-1] if self.last else None
        inner = parameters[: len(self.slots)]
        known = [(id(value), value.dtype, value.device) for value in inner]
        if known != self.known:
            self.flats, self.known = self.flatten(inner), known
        assert made.film is not None
        numbers = nn.functional.pad(made.film[row], (0, 1))
        there = {device: numbers.to(device) for device in {flat.base.device for flat in self.flats}}
        self.folded = True
        for flat in self.flats:
            flat.write(there[flat.base.device])
        if weight is not None:
            self.kept = weight, weight.data.clone()
            last: Any = self.network.layers[-1]
            weight.data.add_(last.folded(made.parts[-1][row].to(last.up)).to(weight))

    @torch.inference_mode()  # Ctrl-C may have left it, and what was loaded in it can be written there alone
    def restore(self) -> None:
        """Give all parameters back what they had before `write`, bit for bit."""
        if not self.folded:
            return
        for flat in self.flats:
            flat.restore()
        if self.kept is not None:
            self.kept[0].data.copy_(self.kept[1])
        self.kept, self.folded = None, False

    def flatten(self, parameters: list[Tensor]) -> list[Flat]:
        """Return parameters side by side, those of one dtype on one device together."""
        groups: dict[tuple[torch.dtype, torch.device], list[int]] = {}
        for number, one in enumerate(parameters):
            groups.setdefault((one.dtype, one.device), []).append(number)
        return [
            Flat.of([parameters[n] for n in chosen], *([self.places[n][k] for n in chosen] for k in (0, 1)))
            for chosen in groups.values()
        ]


def slot_of(denoiser: nn.Module, module: str, parameter: str) -> tuple[Find, nn.Module, str]:
    return finder(denoiser, module), unwrapped(denoiser.get_submodule(module)), parameter


def is_moved(module: nn.Module) -> bool:
    """Tell whether something moves or casts a module's parameters when it is called; to lie on a device is no move."""
    hook = vars(module).get("_hf_hook")
    return "_diffusers_hook" in vars(module) or any(
        getattr(one, "offload", True) for one in getattr(hook, "hooks", (hook,) if hook is not None else ())
    )


def is_plain(value: Any, devices: Collection[torch.device]) -> bool:
    """Tell whether a parameter can be written in place, and holds more than a quantised or sharded shadow."""
    if type(value) not in (nn.Parameter, Tensor) or value.device not in devices or not value.dtype.is_floating_point:
        return False
    return value.dtype.itemsize > 1 and (not value.is_inference() or torch.is_inference_mode_enabled())


def owners_of(denoiser: nn.Module, modules: list[nn.Module]) -> list[nn.Module]:
    """Return modules with all that they lie in, but the denoiser itself, which is moved before it is called."""
    wanted = set(map(id, modules))
    names = [name for name, module in denoiser.named_modules() if id(module) in wanted]
    parents = {".".join(name.split(".")[:end]) for name in names for end in range(1, name.count(".") + 2)}
    return [denoiser.get_submodule(name) for name in sorted(parents)]
