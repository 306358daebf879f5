"""What attaching puts on a denoiser, a few hooks, and what they do around one call of it: a turn.

One turn at a time for each denoiser: whoever calls it meanwhile, with an adapter or without, waits. A turn takes the
folded form where it can, else the live form; afterwards the denoiser is the base's again.
"""

import sys
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet, ref

import torch
from torch import Tensor, nn

from guidefold.acting.checkpoints import recalled
from guidefold.acting.chunking import whole_batches
from guidefold.acting.compiling import is_frozen
from guidefold.acting.conditioning import all_alike, first_of, of_step, per_image, remembered
from guidefold.acting.deltas import Deltas
from guidefold.acting.folding import Folding
from guidefold.acting.layering import Layering, Told
from guidefold.acting.placing import Homes, home_of, settle
from guidefold.acting.requests import Request
from guidefold.acting.swaps import Swaps, rows_of_negative
from guidefold.acting.turns import running, turns_at
from guidefold.adapters.conditions import conditions_of
from guidefold.denoiser import Call, argument_names, read_call

if TYPE_CHECKING:
    from guidefold.acting.acting import Acting


class Place:
    """One denoiser that an adapter acts on: the attached one, or a copy of it."""

    def __init__(self, adapter: "Acting", denoiser: nn.Module) -> None:
        self.names, self.denoiser = argument_names(type(denoiser)), ref(denoiser)
        self.layering, self.folding = Layering(adapter, denoiser), Folding(adapter, denoiser)
        self.deltas = Deltas(adapter, denoiser)
        self.turns = turns_at(denoiser)
        self.homes: Homes | None = None
        self.wrappers: dict[int, Any] = {}  # of what blocks are called through where they run again
        self.undo = ExitStack()

    def begin(self, adapter: "Acting", denoiser: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Let the adapter act in the call that follows, as the running call asks, and keep others waiting."""
        self.turns.take(running(), self)
        try:
            self.restore()  # what was to run again in a backward pass
            request = adapter.taken()
            if request is None:
                self.deltas.hold(0.0)
                return
            request.memory.calls += 1
            self.act(adapter, request, denoiser, args, kwargs)
        except BaseException:
            self.end()
            raise

    def act(self, adapter: "Acting", request: Request, denoiser: nn.Module, args: tuple, kwargs: dict) -> None:
        """Fold, or tell the layers, what the request and this call's conditions come to."""
        call = read_call(denoiser, args, kwargs, self.names)
        latents = call.tensors[call.latents]
        device = home_of(denoiser, latents.device)
        self.homes = settle(adapter, denoiser, device, self.homes)
        scale = per_image(request, call.rows, device)
        conditions = self.conditions(adapter, request, call, denoiser, args, kwargs)
        conditions = {name: value.to(device) for name, value in conditions.items()}
        code = remembered(adapter, request, scale, conditions)
        self.deltas.hold(adapter.held(request))
        if self.folds(request, conditions[call.timestep], call.rows) and (
            parameters := self.writable(adapter, request, device)
        ):
            with torch.no_grad():
                one = {name: first_of(value, call.rows) for name, value in conditions.items()}
                self.folding.write(parameters, *of_step(adapter, request, scale, one, code))
            return
        made = adapter.modulations(scale, conditions, latents.dtype, code)
        self.change(self.layering.told(made, conditions, call.rows if latents.dim() == 4 else 0))
        if torch.is_grad_enabled():
            for context in recalled(denoiser, self):
                self.undo.enter_context(context)

    def writable(self, adapter: "Acting", request: Request, device: torch.device) -> list[Tensor] | None:
        """Return the parameters to write, looked for once for all calls of a request that ends; None if there are none.

        What a bare denoiser is set to stays for good, and its layers may be moved or wrapped meanwhile.
        """
        memory, key = request.memory, (id(self), device)
        if request is adapter.standing:
            return self.folding.parameters(device)
        if memory.where != key or memory.parameters is None:
            memory.where, memory.parameters = key, self.folding.parameters(device)
        return memory.parameters

    def change(self, told: Told) -> None:
        """Let layers change what they put out, as told, until `restore`."""
        denoiser = self.denoiser()
        assert denoiser is not None
        self.layering.put(without=self.deltas.names if self.deltas.strength else ())
        self.undo.enter_context(whole_batches(denoiser))
        self.layering.tell(told)

    def folds(self, request: Request, timestep: Tensor, rows: int) -> bool:
        """Tell whether this call can take the folded form: no gradients, and all its rows see the same."""
        held = len(self.deltas.layers) if self.deltas.strength else 0
        if not self.folding.possible(held) or torch.is_grad_enabled() or is_frozen():
            return False
        return rows == 1 or (request.uniform and request.memory.alike and all_alike(timestep, rows))

    def conditions(
        self, adapter: "Acting", request: Request, call: Call, denoiser: nn.Module, args: tuple, kwargs: dict
    ) -> dict[str, Tensor]:
        """Return the conditions of a call, with those of the negative prompt where the adapter wants them."""
        found, negative = conditions_of(call), request.negative
        if not adapter.spec.negative:
            return found
        if isinstance(negative, Swaps):
            negative = negative.conditions(denoiser, args, kwargs, self.names)
        return found | rows_of_negative(adapter.spec, negative, call.rows)

    def end(self) -> None:
        """Give the denoiser back as the base's."""
        if not self.turns.mine:
            return
        if not (torch.is_grad_enabled() and self.runs_again()):
            self.restore()
        self.turns.give()

    def runs_again(self) -> bool:
        """Tell whether blocks may run again in a backward pass, in a way that `checkpoints` does not know."""
        return not hasattr(self.denoiser(), "is_gradient_checkpointing")

    def abandon(self) -> None:
        """End what this thread has begun here and not ended, as Ctrl-C leaves it."""
        if self.turns.mine:
            self.restore()
            self.turns.give()

    def tidy(self) -> None:
        """Undo what an interrupted call has left; wait for one that another thread is in."""
        if not (self.turns.mine and self.turns.runs()):
            self.turns.take(sys._getframe(), self)
            self.abandon()

    def rest(self) -> None:
        """Give the denoiser the base's weights until its next call; wait for one that another thread is in."""
        if not (self.turns.mine and self.turns.runs()):
            self.turns.take(sys._getframe(), self)
            self.deltas.hold(0.0)
            self.abandon()

    def restore(self) -> None:
        self.folding.restore()
        self.layering.clear()
        self.undo.close()


@dataclass(eq=False)
class Attachment:
    """What attaching did, so that detaching can undo it.

    `scoped`: the adapter acts only in calls that ask it to, those of `pipes` or of a guider; what else calls the
    denoiser, such as a pipeline that shares it, gets the base model.
    """

    denoiser: nn.Module
    scoped: bool
    pipes: WeakSet = field(default_factory=WeakSet)
    handles: list[Any] = field(default_factory=list)
    places: WeakKeyDictionary = field(default_factory=WeakKeyDictionary)
    lock: Any = field(default_factory=threading.Lock)

    def open(self, adapter: "Acting") -> None:
        """Put the hooks on the denoiser, or none."""
        try:
            before, after = Before(adapter, self), After(adapter, self)
            self.handles.append(self.denoiser.register_forward_pre_hook(before, with_kwargs=True))  # pyright: ignore[reportArgumentType]
            self.handles.append(self.denoiser.register_forward_hook(after, always_call=True))  # pyright: ignore[reportArgumentType]
            self.handles.append(self.denoiser.register_state_dict_pre_hook(Tidy(adapter, self)))
        except BaseException:
            self.close()
            raise

    def takes(self, pipe: Any, denoiser: nn.Module) -> bool:
        """Tell whether a further pipeline can be served: one of the same denoiser, after others."""
        return self.scoped and pipe is not None and self.denoiser is getattr(denoiser, "_orig_mod", denoiser)

    def place(self, adapter: "Acting", denoiser: nn.Module) -> Place:
        """Return the place of the attached denoiser or of a copy, made when it is first called."""
        with self.lock:
            found = self.places.get(denoiser)
            if found is None:
                found = self.places[denoiser] = Place(adapter, denoiser)
        return found

    def abandon(self) -> None:
        """End what the running thread has begun and not ended."""
        for place in list(self.places.values()):
            place.abandon()

    def close(self) -> None:
        """Take the hooks off, after the calls that other threads are in."""
        places = list(self.places.values())
        for place in places:
            place.turns.take(sys._getframe(), place)
        for handle in self.handles:
            handle.remove()
        for place in places:
            place.deltas.hold(0.0)
            place.abandon()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to this process: locks, places, pipelines that live elsewhere."""
        return {"denoiser": self.denoiser, "scoped": self.scoped, "handles": self.handles}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, pipes=WeakSet(), places=WeakKeyDictionary(), lock=threading.Lock())


class Before:
    """The hook before a denoiser's call. A copied denoiser has it too, and is a place of its own."""

    def __init__(self, adapter: "Acting", attachment: Attachment) -> None:
        self.adapter, self.attachment = adapter, attachment

    @torch.compiler.disable
    def __call__(self, denoiser: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        if self.adapter._attachment is self.attachment:
            self.attachment.place(self.adapter, denoiser).begin(self.adapter, denoiser, args, kwargs)

    def __deepcopy__(self, memo: dict) -> "Before":
        return self


class After(Before):
    """The hook after it, which runs when the call fails too."""

    @torch.compiler.disable
    def __call__(self, denoiser: nn.Module, args: tuple, output: Any) -> None:
        place = self.attachment.places.get(denoiser)
        if place is not None:
            place.end()


class Tidy(Before):
    """The hook before a denoiser is saved, which undoes what an interrupted call has left."""

    def __call__(self, denoiser: nn.Module, *_: Any) -> None:
        place = self.attachment.places.get(denoiser)
        if place is not None:
            place.tidy()


def acting_on(denoiser: nn.Module) -> list[Any]:
    """Return the adapters that are attached to a denoiser, or to the one that it is a copy of."""
    hooks = getattr(denoiser, "_orig_mod", denoiser)._forward_pre_hooks.values()
    found = [hook for hook in hooks if isinstance(hook, Before)]
    # a copy keeps the hooks of an adapter that has since been detached
    return [hook.adapter for hook in found if hook.adapter._attachment is hook.attachment]
