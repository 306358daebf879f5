"""One call of a pipeline, with and without guidance: what the student would see, and what it would have to answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guidefold.answers import packed, unpacked
from guidefold.capture.known import KnownAnswers
from guidefold.capture.mapping import NotAffine, OutputMap, learn_maps
from guidefold.capture.run import run
from guidefold.capture.switch import Switch, find_switch
from guidefold.capture.tape import Answer, Called, Step, Tape, aligned
from guidefold.denoiser import Call
from guidefold.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a denoiser, called without guidance, would have to answer for the guided result."""

    called: Called
    answer: Tensor  # [N], see `packed`
    mask: Tensor | None  # [N], which of its numbers reach the scheduler; None for all
    before: dict[str, Called]  # what other networks were called with for it, by component


class Watch:
    """A pipeline and one call of it, run with guidance, and without guidance along the same trajectory.

    With `along` that trajectory is the one of these steps, as another run made them. With `known` the run without
    guidance takes what answers it can from the other one, which `observe` has found to be right.
    """

    def __init__(
        self,
        pipe: Any,
        call: Callable[[], dict[str, Any]],
        switch: Switch | None = None,
        along: Sequence[Step] = (),
        *,
        known: bool = False,
    ) -> None:
        # made anew for every run: a generator is used up
        self.pipe, self.call, self.name = pipe, call, type(pipe).__name__
        self.guided = run(pipe, call(), forced=along)
        if not self.guided.steps:
            raise ModelError(
                f"{self.name} never called the step of a scheduler of its own; what guidance decides cannot be seen"
            )
        if not all(step.received.isfinite().all() for step in self.guided.steps):
            raise ModelError(f"{self.name} predicts values that are not finite; load it in float32 or bfloat16")
        self.switch = switch or find_switch(pipe, call, self.guided)
        self.along = along or self.guided.steps
        self.bare = self.off(forced=self.along, answer=KnownAnswers(self.guided) if known else None)
        if len(self.bare.steps) != len(self.guided.steps):
            raise ModelError(
                f"{self.name} takes {len(self.bare.steps)} steps without guidance and {len(self.guided.steps)} with it"
            )
        self.used = {step.call for step in self.bare.steps}

    def off(self, **options: Any) -> Tape:
        """Run without guidance."""
        with self.switch.without(self.pipe):
            return run(self.pipe, self.switch.off(self.call()), **options)

    def answering(self, give: Callable[[int, Any], Any]) -> Answer:
        """Answer calls in the structure of the first run; ControlNets answer what they answered there."""

        def answer(denoiser: str, number: int, call: Call) -> Any:
            if number >= len(self.bare.called) or self.bare.called[number].denoiser != denoiser:
                raise ModelError(f"{self.name} calls its denoisers in another order at every run")
            before = self.bare.called[number].answer
            return give(number, before) if number in self.used else unpacked(before, packed(before))

        return answer

    def mixes(self, targets: dict[int, Target]) -> bool:
        """Tell whether schedulers receive more of the denoisers that learn than each step's last answer."""
        learning = {target.called.denoiser for target in targets.values()}

        def answer(denoiser: str, number: int, call: Call) -> Any:
            before = self.bare.called[number].answer
            other = denoiser in learning and number not in self.used
            return unpacked(before, packed(before) + other)

        if all(one.denoiser not in learning or number in self.used for number, one in enumerate(self.bare.called)):
            return False
        steps = self.off(answer=answer, forced=self.along).steps
        return any(not torch.equal(one.received, two.received) for one, two in zip(steps, self.bare.steps, strict=True))

    def probe(self, fill: Callable[[int], Tensor]) -> list[Tensor]:
        """Return what every step receives when the denoisers answer `fill(N)` along the guided trajectory."""

        def give(number: int, before: Any) -> Any:
            numbers = packed(before)
            return unpacked(before, fill(len(numbers)).to(numbers))

        tape = self.off(answer=self.answering(give), forced=self.along)
        return [step.received for step in tape.steps]

    def maps(self) -> list[OutputMap]:
        """Learn what every step receives of the denoisers' answers. Raises ModelError where it is no affine image."""
        try:
            return learn_maps(self.probe, [len(packed(self.bare.answering(step).answer)) for step in self.bare.steps])
        except NotAffine as error:
            raise ModelError(
                f"{self.name} changes the denoiser's output on the way to its scheduler in a way that is not affine"
            ) from error

    def targets(self, maps: list[OutputMap] | None) -> dict[int, Target]:
        """Carry what guidance decided back to what the denoiser would have to answer; no maps: it is just that."""
        found: dict[int, Target] = {}
        for number, (step, guided) in enumerate(zip(self.bare.steps, self.guided.steps, strict=True)):
            wanted = aligned(guided.received, step.received)
            if wanted is None:
                continue
            called, known = self.bare.answering(step), found.get(step.call)
            before = self.bare.before(step.call)
            if maps is None:
                self.check_same(step)
                found[step.call] = Target(called=called, answer=wanted.reshape(-1), mask=None, before=before)
                continue
            answer = packed(called.answer) if known is None else known.answer
            mask = maps[number].mask.to(answer.device)
            mask = mask if known is None or known.mask is None else known.mask | mask
            answer = maps[number].backward(wanted, answer)
            found[step.call] = Target(called=called, answer=answer, mask=mask, before=before)
        if not found:
            raise ModelError(f"no step of {self.name} receives as many rows with guidance as without")
        return found

    def check_same(self, step: Step) -> None:
        """Raise ModelError unless a scheduler receives an answer as it is."""
        if not torch.equal(packed(self.bare.answering(step).answer), step.received.reshape(-1)):
            raise ModelError(f"{self.name} changes the denoiser's output at some steps only")

    def student(self, targets: dict[int, Target]) -> Tape:
        """Run without guidance and with a perfect student."""

        def give(number: int, before: Any) -> Any:
            return unpacked(before, targets[number].answer if number in targets else packed(before))

        return self.off(answer=self.answering(give))
