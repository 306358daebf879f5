"""An adapter that acts: outside the denoiser, in the calls that ask it to, with a tested inverse for everything."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from guidefold.acting.attachment import Attachment
from guidefold.acting.compiling import look_for_hooks
from guidefold.acting.fitting import check
from guidefold.acting.pipeline import fold, folding, is_pipeline, unfold
from guidefold.acting.requests import (
    Request,
    ask_once,
    asking,
    disabling,
    forget_once,
    is_disabled,
    request_of,
)
from guidefold.acting.swaps import Negative
from guidefold.adapters.network import Network
from guidefold.adapters.scales import Scale, as_scales, at_least
from guidefold.denoiser import chosen_denoiser
from guidefold.errors import InputError, ModelError


@dataclass(frozen=True)
class Folded:
    """That deltas are to be in the weights: at one strength, or at that of each call."""

    strength: float | None


def strength_of(scale: Tensor, anchors: int) -> float:
    """Return u = tanh(s - 1) of the first image's scales."""
    first = scale.reshape(len(scale), -1)[0, :anchors].double()
    return math.tanh(float((first - 1).sum()))


class Acting(Network):
    """A network that can be attached to a pipeline or a denoiser. Constructing changes nothing; `attach` acts."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._attachment: Attachment | None = None
        self._folded: Folded | None = None
        self._resting: Any = None  # the hook that gives `state_dict` the base's weights
        self._standing: Request | None = None  # of a bare denoiser: what its calls ask where they say nothing else

    @property
    def attached(self) -> bool:
        return self._attachment is not None

    @property
    def attachment(self) -> Attachment | None:
        return self._attachment

    @property
    def standing(self) -> Request | None:
        return self._standing

    @property
    def enabled(self) -> bool:
        """Whether the adapter acts in this thread: not within `disabled()`."""
        return not is_disabled(self)

    @property
    def guidance_scale(self) -> Tensor | None:
        """The guidance scale [1], one per image [B], or for D dials [B, D]; None before it was set.

        A scale that does nothing at 0 is kept one higher: here 1 is always the model without guidance.
        """
        request = request_of(self) or self._standing
        return None if request is None else request.scale

    @guidance_scale.setter
    def guidance_scale(self, value: Scale) -> None:
        self.set(value)

    def set(self, guidance_scale: Scale, *, negative: Negative | None = None) -> None:
        """Set the guidance scale of a bare denoiser's calls, and a negative prompt's conditions by their names."""
        self._standing = Request.of(self.checked(guidance_scale), negative)

    def reset(self) -> None:
        """Forget the guidance scale and the negative prompt."""
        self._standing = None
        forget_once(self)

    @contextmanager
    def at(self, guidance_scale: Scale, *, negative: Negative | None = None) -> Iterator[Self]:
        """Set the guidance scale and the negative prompt's conditions for a while, in this thread."""
        with self.asked(Request.of(self.checked(guidance_scale), negative)):
            yield self

    @contextmanager
    def asked(self, request: Request) -> Iterator[None]:
        """Answer a request for a while, and leave no call unended, whatever interrupts it."""
        try:
            with asking(self, request):
                yield
        finally:
            if self._attachment is not None:
                self._attachment.abandon()

    @contextmanager
    def disabled(self) -> Iterator[Self]:
        """Give back the teacher, bit for bit, for a while, in this thread."""
        with disabling(self):
            yield self

    def fold(self, guidance_scale: Scale | None = None) -> Self:
        """Put the deltas of an attached adapter into the denoiser's weights, as `fuse_lora` does, until `unfold`.

        At a given scale, or at whatever scale a call has, which is folded anew when it changes. Calls at other scales,
        at several at once, and without the adapter find the base's weights, which are kept beside: the adapted layers
        take twice the memory. Raises ModelError where there are no deltas, or weights that cannot be written.
        """
        if self._attachment is None:
            raise ModelError("this adapter is not attached; attach it first")
        place = self._attachment.place(self, self._attachment.denoiser)
        place.deltas.check()
        scale = None if guidance_scale is None else self.checked(guidance_scale)
        self._folded = Folded(None if scale is None else strength_of(scale, self.spec.anchors))
        if self._resting is None:
            self._resting = self._attachment.denoiser.register_state_dict_pre_hook(self.rest)
        return self

    def unfold(self) -> Self:
        """Undo `fold`: the weights are the base's own again, bit for bit."""
        self._folded = None
        self.rest()
        if self._resting is not None:
            self._resting.remove()
            self._resting = None
        return self

    def rest(self, *_: Any) -> None:
        """Give all denoisers the base's weights, until the next call."""
        for place in list(self._attachment.places.values()) if self._attachment is not None else ():
            place.rest()

    def held(self, request: Request) -> float:
        """Return the strength that the weights are to hold the deltas at in a call, 0 for none."""
        if self._folded is None or not request.uniform or torch.is_grad_enabled():
            return 0.0
        memory = request.memory
        if memory.scale is not request.scale:
            memory.scale, memory.strength = request.scale, strength_of(request.scale, self.spec.anchors)
        return memory.strength if self._folded.strength in (None, memory.strength) else 0.0

    def set_once(self, guidance_scale: Scale, *, negative: Negative | None = None) -> None:
        """Act in the denoiser's next call of this thread alone, and in no other that is given no scale."""
        assert self._attachment is not None
        self._attachment.scoped = True
        ask_once(self, Request.of(self.checked(guidance_scale), negative, once=True))

    def taken(self) -> Request | None:
        """Return what a call that begins now asks, or None where it is to be the base's. Raises InputError."""
        request = request_of(self)
        if request is not None and request.once:
            forget_once(self)
        if is_disabled(self):
            return None
        if request is None and self._attachment is not None and not self._attachment.scoped:
            request = self._standing
            if request is None:
                raise InputError(
                    "the adapter has no guidance scale yet; set adapter.guidance_scale, or call the pipeline"
                )
        return request

    def checked(self, value: Scale) -> Tensor:
        """Return scales as `as_scales` does, where the adapter is: a copy at every step would make a GPU wait."""
        trained = self.trained.get("scale_min", -math.inf), self.trained.get("scale_max", math.inf)
        return as_scales(value, self.spec.offs, trained).to(self.heads.weight.device)

    def counted(self, dials: Mapping[str, Any]) -> Tensor:
        """Return scales as a pipeline is given them, counted from 1."""
        return self.checked({name: at_least(off, dials[name]) for name, off in self.spec.offs.items()})

    def sees(self, name: str) -> bool:
        """Tell whether a condition, or a mask of one, changes what the adapter does."""
        if self.encoder is None:
            return False
        spec = self.encoder.spec
        return name in spec.tokens or name in spec.vectors or name in spec.labels or "mask" in name

    def serves(self, pipe: Any) -> None:
        """Remember a pipeline, without keeping it alive, so that `detach` can undo what was done to it."""
        if self._attachment is not None:
            self._attachment.pipes.add(pipe)

    def attach(self, model: Any) -> Self:
        """Act on a pipeline, whose guidance then costs no second pass, or on a bare denoiser; return self.

        Further pipelines of the same denoiser may follow, such as text-to-image and image-to-image. Everything is
        checked before anything changes. Raises ModelError when the model is compiled, already has an adapter, or does
        not have the targets this adapter was made for.
        """
        pipe = model if is_pipeline(model) else None
        denoiser = chosen_denoiser(model, self.spec.denoiser)
        attachment = self._attachment
        if attachment is None or not attachment.takes(pipe, denoiser):
            check(self, denoiser)
            attachment = Attachment(denoiser, scoped=pipe is not None)
        switches = None if pipe is None else folding(pipe, self)
        if not self.attached:
            look_for_hooks()
            attachment.open(self)
            # not a child: offloading and casting of the denoiser must not see the adapter
            object.__setattr__(self, "_attachment", attachment)
        if switches is not None:
            self.requires_grad_(False)
            fold(pipe, switches)
            attachment.pipes.add(pipe)
        return self

    def detach(self) -> None:
        """Undo `attach`: the model is what it was before. Raises ModelError when not attached."""
        attachment = self._attachment
        if attachment is None:
            raise ModelError("this adapter is not attached")
        self.unfold()
        attachment.close()
        for pipe in list(attachment.pipes):
            unfold(pipe, self)
        self._attachment = None
