"""Find out what makes a denoiser's inputs, and that calling it again gives them: what is not found is recorded."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guidefold.answers import leaves
from guidefold.capture.known import same
from guidefold.capture.makers import Bound, Inputs, Maker, remade
from guidefold.capture.replay import Replay, check_alike, check_same, difference, kept_once, layout_of
from guidefold.capture.tape import Called
from guidefold.capture.watch import Target, Watch
from guidefold.denoiser import denoisers
from guidefold.errors import ModelError
from guidefold.memory import is_of_memory


@dataclass(frozen=True, kw_only=True)
class Making:
    """A maker, and how its calls are recorded."""

    maker: Maker
    replay: Replay

    def own(self, target: Target, inputs: Inputs, images: int) -> Inputs:
        """Return what a maker was called with and its denoiser, which got these inputs, was not.

        Raises ModelError where that would not make again what the denoiser got.
        """
        name, made = self.maker.component, target.before.get(self.maker.component)
        if made is None:
            raise ModelError(f"the {name} is called at some steps only; such a pipeline cannot be recorded")
        rows, answer = self.replay.rows(made.call, images), leaves(made.answer)
        if any(not torch.equal(rows[one], inputs[one]) for one in self.maker.borrowed) or any(
            not torch.equal(answer[place], target.called.call.tensors[one]) for one, place in self.maker.made.items()
        ):
            raise ModelError(f"what the {name} is given, or makes, changes on the way; such a pipeline is not recorded")
        for one, value in made.call.static.items():
            listed = isinstance(value, (list, tuple)) and len(value) == images  # which may go with the batch
            comparable = images == self.replay.layout.images or not listed
            if comparable and one not in self.replay.left_out:
                check_same(one, self.maker.static.get(one), value)
        return {one: value for one, value in rows.items() if one not in self.maker.borrowed}


def makings(
    watch: Watch, targets: Sequence[Target], replay: Replay, tolerance: float, learning: Collection[str]
) -> tuple[Making, ...]:
    """Return what makes inputs of a denoiser at each of its targets, and gives the same when it is called again.

    None of `learning` does: an adapter changes what they answer.
    """
    found: list[Making] = []
    for component in denoisers(watch.pipe):
        if component not in learning and all(component in target.before for target in targets):
            try:
                one = making(watch, component, targets, replay)
                if one is not None and error_of(watch, one, targets, replay) <= tolerance:
                    found.append(one)
            except Exception as error:  # what cannot be called again has no end of reasons; its answers are recorded
                if is_of_memory(error):
                    raise
    # one that takes what another makes would have to wait for it
    given = {name.partition("@")[0] for one in found for name in one.maker.borrowed}
    return () if any(name in given for one in found for name in one.maker.made) else tuple(found)


def making(watch: Watch, component: str, targets: Sequence[Target], replay: Replay) -> Making | None:
    """Return how a component makes inputs of a denoiser, or None where it makes none, or not always the same."""
    calls = [target.before[component] for target in targets]
    made = linked(targets[0].called, calls[0])
    if not made or any(linked(target.called, one) != made for target, one in zip(targets, calls, strict=True)):
        return None
    if not all(any(leaf.any() for leaf in leaves(one.answer)) for one in calls):
        return None  # off at the steps that were watched: at others it may be on, which is another argument
    layout = layout_of(watch.pipe, watch.call(), watch.switch, calls, replay.layout.images)
    static, objects = kept_once([one.call for one in calls])
    how = Replay(layout=layout, static=static, left_out=frozenset(objects), error=0.0)
    rows, inputs = rows_of(calls, how), rows_of([target.called for target in targets], replay)
    check_alike(rows)
    borrowed = tuple(
        name for name in sorted(rows[0])
        if all(name in two and same(one[name], two[name]) for one, two in zip(rows, inputs, strict=True))
    )  # fmt: skip
    return Making(maker=Maker(component=component, made=made, borrowed=borrowed, static=static), replay=how)


def linked(called: Called, before: Called) -> dict[str, int]:
    """Return which of a call's tensors another network answered, in the order of its answers."""
    own, made = before.call.tensors, {}
    names = [name for name in called.call.tensors if name not in own]
    for place, leaf in enumerate(leaves(before.answer)):
        name = next((one for one in names if one not in made and same(called.call.tensors[one], leaf)), None)
        if name is not None:
            made[name] = place
    return made


def rows_of(calls: Sequence[Called], replay: Replay) -> list[Inputs]:
    return [replay.rows(one.call, replay.layout.images) for one in calls]


def error_of(watch: Watch, one: Making, targets: Sequence[Target], replay: Replay) -> float:
    """Return how far what is made again is from what was given, each step alone and all in one batch."""
    makers: Bound = ((one.maker, denoisers(watch.pipe)[one.maker.component]),)
    inputs = [one.maker.without_made(each) for each in rows_of([target.called for target in targets], replay)]
    own = [one.own(target, each, one.replay.layout.images) for target, each in zip(targets, inputs, strict=True)]
    given = [{name: target.called.call.tensors[name] for name in one.maker.made} for target in targets]
    cases = [*zip(inputs, own, given, strict=True), tuple(joined(each) for each in (inputs, own, given))]
    worst = 0.0
    for seen, more, wanted in cases:
        again = remade(makers, seen, {one.maker.component: more})
        worst = max(worst, *(difference(again[name], value) for name, value in wanted.items()))
    return worst


def joined(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([state[name] for state in states]) for name in states[0]}
