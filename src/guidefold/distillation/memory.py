"""What a run will need of a device's memory, computed with tensors that have shapes but no numbers."""

import copy
import functools
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    UnsupportedFakeTensorException,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from guidefold.adapters import ConditionSpec
from guidefold.capture.makers import Maker
from guidefold.config import AdapterConfig, HoldingConfig, TrainConfig
from guidefold.denoiser import Call, arguments_of
from guidefold.distillation.freezing import frozen
from guidefold.distillation.losses import guidance_loss
from guidefold.distillation.student import Student
from guidefold.errors import ModelError
from guidefold.keeping import Adapter
from guidefold.trajectories.states import States

ADAPTER_COPIES = 3  # of its weights in float32, besides themselves: AdamW's two moments and the average


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on a device: what rests there while nothing runs, and the most there is at once."""

    resting: int
    peak: int


class Ledger(TorchDispatchMode):
    """Counts the bytes of the tensors that live at once; what kernels need for themselves is not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                self.hold(value)
        return result

    def hold(self, value: Tensor) -> None:
        """Count a tensor's storage until it is gone; views share one."""
        storage = value.untyped_storage()
        if storage in self.known:
            return
        self.known.add(storage)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.release, size)

    def release(self, size: int) -> None:
        self.now -= size

    def hold_all(self, module: nn.Module) -> None:
        """Count a network's weights and buffers."""
        for value in (*module.parameters(), *module.buffers()):
            self.hold(value)


@functools.cache
def pretending() -> FakeTensorMode:
    """Let tensors have shapes but no numbers for a while; always the same, because they do not mix with others'."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def weightless(module: nn.Module) -> Any:
    """Return a copy of a network without numbers, which takes no memory; or the network itself if it has none."""
    held = [*module.parameters(), *module.buffers()]
    if any(isinstance(value, FakeTensor) for value in held):
        return module
    memo: dict[int, Any] = {}
    with pretending():
        for value in held:
            empty = torch.empty(value.shape, dtype=value.dtype)
            memo[id(value)] = nn.Parameter(empty, requires_grad=False) if isinstance(value, nn.Parameter) else empty
    return copy.deepcopy(module, memo)


def bytes_of(module: nn.Module) -> int:
    """Return the size of a network's weights and buffers."""
    return sum(value.numel() * value.element_size() for value in (*module.parameters(), *module.buffers()))


def packed_bytes(module: nn.Module, kind: str) -> int:
    """Return the size of a network whose linear layers bitsandbytes packs: 4 bits and a scale for 64, or 8 bits."""
    linears = [one.weight for one in module.modules() if isinstance(one, nn.Linear)]
    share = 0.5 + 4 / 64 if kind == "nf4" else 1.0
    return round(bytes_of(module) - sum(one.numel() * (one.element_size() - share) for one in linears))


def largest_block(module: nn.Module) -> int:
    """Return the size of the largest of a network's repeated blocks, which offloading brings to the device at once."""
    lists = [one for one in module.modules() if isinstance(one, nn.ModuleList)]
    return max((bytes_of(block) for one in lists for block in one), default=bytes_of(module))


def held_bytes(module: nn.Module, holding: HoldingConfig) -> int:
    """Return what of a denoiser's weights is on its device while it runs."""
    whole = packed_bytes(module, holding.quantize) if holding.quantize else bytes_of(module)
    return min(whole, 2 * largest_block(module)) if holding.offload == "group" else whole  # one runs, one comes


@dataclass(frozen=True, kw_only=True)
class Sketch:
    """What a student is called with, one row of each tensor; only shapes matter."""

    spec: ConditionSpec
    states: States
    static: dict[str, Any]
    makers: tuple[Maker, ...] = ()  # of inputs that are not in the states
    beside: tuple[nn.Module, ...] = ()  # the networks of the makers, or of inputs that are


def sketch_of_call(denoiser: nn.Module, call: Call) -> Sketch:
    """Return what a student of this denoiser would be called with."""
    states = {f"call.{name}": value[:1] for name, value in call.by_image(call.rows).items()}
    with pretending(), told_of_numbers(denoiser):
        fake = replace(call, tensors={name: torch.empty_like(value) for name, value in call.tensors.items()})
        spec = ConditionSpec.observe(weightless(denoiser), fake)
    return Sketch(spec=spec, states=states, static=call.static)


def repeated(states: States, rows: int) -> States:
    """Return as many states as if they were of one batch; guidance scales are numbers, which adapters look at."""
    result = {
        name: value[:1] if name.endswith("@shared") else value[:1].expand(rows, *value.shape[1:]).clone()
        for name, value in states.items()
        if name.startswith(("call.", "maker.", "negative."))
    }
    dials = [name for name in states if name.startswith("dial.")]
    return result | {name: torch.tensor([2.0] * rows) for name in ("guidance_scale", *dials)}


def student_memory(
    denoiser: nn.Module, sketch: Sketch, shape: AdapterConfig, config: TrainConfig, holding: HoldingConfig, rows: int
) -> tuple[Memory, Memory]:
    """Return what a training step and a validation need for so many states at once.

    The denoiser's weights may lie anywhere; `config` must be settled. Raises ModelError for a denoiser that asks
    for the numbers in its inputs.
    """
    with pretending(), told_of_numbers(denoiser):
        model, ledger = weightless(denoiser), Ledger()
        adapter = Adapter.build(model, sketch.spec, shape)
        beside = [weightless(one) for one in sketch.beside]
        for module in (model, adapter, *beside):
            ledger.hold_all(module)
        above = held_bytes(model, holding) - bytes_of(model) + ADAPTER_COPIES * bytes_of(adapter)
        above += sum(held_bytes(one, replace(holding, quantize=None)) - bytes_of(one) for one in beside)
        resting, peaks = ledger.now + above, []
        makers = tuple(zip(sketch.makers, beside, strict=False))
        student = Student(model, adapter.attach(model), sketch.static, makers)
        states = repeated(sketch.states, rows)
        cast = torch.autocast("cpu", torch.bfloat16, enabled=config.mixed_precision != "no")
        for learning in (True, False):
            ledger.peak = ledger.now
            with frozen(model, gradient_checkpointing=learning and bool(config.gradient_checkpointing)), ledger, cast:
                with torch.set_grad_enabled(learning):
                    prediction = student(states)
                    target = torch.zeros_like(prediction)
                    loss = guidance_loss(prediction, target, torch.ones(rows))
                if learning:
                    loss.backward()
            del prediction, loss
            peaks.append(ledger.peak + above)
        adapter.detach()
    train, validate = (Memory(resting=resting, peak=peak) for peak in peaks)
    return train, validate


def forward_memory(denoiser: nn.Module, call: Call) -> int:
    """Return what one call of a denoiser needs besides its weights. Raises ModelError as `student_memory`."""
    with pretending(), told_of_numbers(denoiser), torch.no_grad():
        model, ledger = weightless(denoiser), Ledger()
        ledger.hold_all(model)
        tensors = {name: value.clone() for name, value in call.tensors.items()}
        before = ledger.now
        with ledger:
            model(**arguments_of(tensors, call.static))
    return ledger.peak - before


@contextmanager
def told_of_numbers(denoiser: nn.Module) -> Iterator[None]:
    """Raise ModelError for a denoiser that cannot run without the numbers in its inputs."""
    try:
        yield
    except (DataDependentOutputException, DynamicOutputShapeException, UnsupportedFakeTensorException) as error:
        raise ModelError(
            f"{type(denoiser).__name__} looks at the numbers in its inputs, so its memory cannot be computed"
        ) from error
