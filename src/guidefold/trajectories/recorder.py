"""Record what a teacher's guided sampling visits: the student's inputs and the guided predictions."""

import functools
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from guidefold.acting.negative import negative_conditions
from guidefold.adapters.conditions import ConditionSpec
from guidefold.answers import by_image, unpacked
from guidefold.arguments import written
from guidefold.capture.makers import Maker
from guidefold.capture.observe import Observation, enough_steps, observe
from guidefold.capture.replay import check_same
from guidefold.capture.run import as_conditions, check_arguments, failures_told, parameters_of, run
from guidefold.capture.switch import SCALES, Dial, first_dial, guider_dials, has_guider
from guidefold.capture.tape import Step, Tape, aligned
from guidefold.capture.watch import Target, Watch
from guidefold.config import TrajectoryConfig
from guidefold.denoiser import denoisers, replaced
from guidefold.errors import InputError, ModelError, SeveralDenoisersError
from guidefold.guidance import PerImageScale
from guidefold.trajectories.additions import additions
from guidefold.trajectories.conditions import Draw, contrasting, draw, kept_steps
from guidefold.trajectories.following import adapter_to_follow, sampling
from guidefold.trajectories.identity import encoders_of, fingerprint, guider_of, others_of, plain, scheduler_of
from guidefold.trajectories.states import States, energy_of, joined, once_for_each


class Recorder:
    """Runs a pipeline with guidance and returns the states its student would have to answer.

    Trajectory i depends on (config.seed, i) and on the batch it is sampled in, which `config.record_batch` fixes.
    `arguments` go to the pipeline's call.
    """

    def __init__(self, pipe: Any, conditions: Sequence[str], config: TrajectoryConfig, **arguments: Any) -> None:
        if not conditions:
            raise InputError("there are no conditions to record; give at least one prompt")
        self.pipe, self.conditions, self.config, self.arguments = pipe, conditions, config, arguments
        self.known = parameters_of(pipe)
        self.guider = has_guider(pipe)
        self.first = guider_dials(pipe)[0] if self.guider else first_dial(pipe)
        drawn = {self.first, *config.dial_ranges()} | ({"negative_prompt"} if config.negatives else set())
        check_arguments(pipe, arguments, drawn)
        if config.negatives and "negative_prompt" not in self.known:
            raise InputError(f"{type(pipe).__name__} takes no negative prompt; leave the negative prompts out")
        scales = guider_dials(pipe) if self.guider else [name for name in self.known if SCALES.search(name)]
        self._known_dials([name for name in scales if name != self.first])
        self.visits = config.sampling_steps  # of a trajectory, by all denoisers; more where the scheduler needs them
        self._observe()

    def _known_dials(self, names: list[str]) -> None:
        """Raise InputError for a range of values for what is none of the named scales."""
        if unknown := sorted(self.config.dial_ranges().keys() - set(names)):
            found = f"choose from {', '.join(names)}" if names else "there is none"
            raise InputError(f"dials has {unknown[0]}, which is no further guidance scale here; {found}")

    def _observe(self) -> None:
        """Watch two images for a few steps, and verify that what will be recorded is what guidance decides."""
        pair = contrasting(self.config, self.conditions)
        draws = pair[: self.config.record_batch]
        self.images = len(draws)
        with self._guided(draws, alone=True):
            made = functools.partial(self._call, draws, alone=True)
            self.few = enough_steps(self.pipe, made, self.config.sampling_steps)
            seen = observe(self.pipe, **made(self.few))
        self.switch, self.identity = seen.switch, all(one.is_identity for one in seen.maps)
        self.knows_bare = seen.knows_bare
        self.dials = self._dials()
        self.name = self._chosen(seen)
        self.denoiser = denoisers(self.pipe)[self.name]
        with failures_told(self.pipe):
            watch = self._watch(draws, self.few, seen.guided.steps)
        self._check_scales(seen, watch.guided)
        call = next(one.call for one in watch.bare.called if one.denoiser == self.name)
        self.replay = seen.replays[self.name]
        self.static, self.makings = self.replay.static, seen.makings[self.name]
        several = len(seen.denoisers) > 1
        self.spec = ConditionSpec.observe(
            self.denoiser, call, negative=bool(self.config.negatives), guider=self.switch.guider,
            dials=tuple((dial.name, dial.off) for dial in self.dials), anchors=self.switch.anchors,
            denoiser=self.name if several else None,
        )  # fmt: skip
        follow = self.config.follow
        self.leader = adapter_to_follow(follow, self.denoiser, self.spec, alone=not several) if follow else None
        self.passes = seen.passes + bool(follow)  # a step and image

    @property
    def makers(self) -> tuple[Maker, ...]:
        """What makes those of the denoiser's inputs that states do not hold."""
        return tuple(one.maker for one in self.makings)

    def _check_scales(self, seen: Observation, together: Tape) -> None:
        """Raise ModelError unless the first of several images is guided as it is when all have its scales."""
        # what rounding once more may change: both runs compute the same, in batches of one size, along one trajectory
        limit = max(1e-4, torch.finfo(seen.dtype).eps)
        for steps in zip(seen.guided.steps, together.steps, seen.bare.steps, strict=True):
            alone, own = (aligned(step.received, steps[-1].received) for step in steps[:2])
            if self.images == 1 or alone is None or own is None:
                continue
            one, two = (received.reshape(self.images, -1)[0].float() for received in (alone, own))
            if (one - two).abs().max() > limit * alone.abs().max():
                raise ModelError(
                    f"{type(self.pipe).__name__} computes guidance with one scale for a whole batch; "
                    "set record_batch to 1"
                )

    def _dials(self) -> list[Dial]:
        """Return the scales that reach the adapter: those that turn guidance off, and those with a range of values."""
        anchors, rest = self.switch.dials[: self.switch.anchors], self.switch.dials[self.switch.anchors :]
        ranges = self.config.dial_ranges()
        self._known_dials([dial.name for dial in self.switch.dials if dial.name != self.first])
        return [*anchors, *(dial for dial in rest if dial.name in ranges)]

    def _chosen(self, seen: Observation) -> str:
        """Return the component to learn. Raises InputError unless there is one, or it was named."""
        denoiser = self.config.denoiser
        if denoiser is None and len(seen.denoisers) == 1:
            return seen.denoisers[0]
        if denoiser is None:
            raise SeveralDenoisersError(type(self.pipe).__name__, seen.denoisers)
        if denoiser not in seen.denoisers:
            found = ", ".join(seen.denoisers)
            raise InputError(f"{type(self.pipe).__name__} does not guide {denoiser}; choose denoiser from {found}")
        return denoiser

    def _call(self, draws: list[Draw], steps: int, *, alone: bool = False) -> dict[str, Any]:
        """Return the arguments of a run: with each draw's own guidance scales, or with the first one's for all."""
        call = as_conditions(self.pipe, [one.prompt for one in draws])
        if self.config.negatives:
            call["negative_prompt"] = [one.negative for one in draws]
        call |= {"output_type": "latent"} if "output_type" in self.known else {}
        call |= {"num_inference_steps": steps, "generator": [torch.Generator().manual_seed(one.seed) for one in draws]}
        known = {name: item for name, item in call.items() if name in self.known}
        return known | self.arguments | ({} if self.guider else self._scales(draws, alone=alone))

    def _scales(self, draws: list[Draw], *, alone: bool) -> dict[str, float]:
        """Return the guidance scales of a run by name."""
        values = {self.first: [one.guidance_scale for one in draws]}
        values |= {name: [one.dials[name] for one in draws] for name in draws[0].dials}
        return {name: many[0] if alone else PerImageScale(many) for name, many in values.items()}

    @contextmanager
    def _guided(self, draws: list[Draw], *, alone: bool = False) -> Iterator[None]:
        """Set the scales of a guider for a while."""
        with ExitStack() as stack:
            for name, value in self._scales(draws, alone=alone).items() if self.guider else ():
                stack.enter_context(replaced(self.pipe.guider, name, value))
            yield

    def _watch(self, draws: list[Draw], steps: int, along: Sequence[Step] = ()) -> Watch:
        """Run with guidance, and without it along the same trajectories."""
        with self._guided(draws):
            return Watch(self.pipe, lambda: self._call(draws, steps), self.switch, along, known=self.knows_bare)

    def _led(self, draws: list[Draw], known: States) -> Sequence[Step]:
        """Return the steps of the trajectories that the adapter to follow samples, or none."""
        if not self.leader:
            return ()
        with sampling(self.leader, self.denoiser, known), self.switch.without(self.pipe):
            return run(self.pipe, self.switch.off(self._call(draws, self.config.sampling_steps))).steps

    def dial_values(self, draws: list[Draw]) -> dict[str, list[float]]:
        """Return the values of the dials after the first, for each draw."""
        values = {}
        for dial in self.dials[1:]:
            fixed = getattr(self.pipe.guider, dial.name) if self.guider else self.known[dial.name].default
            fixed = self.arguments.get(dial.name, fixed)
            values[dial.name] = [
                one.dials.get(dial.name, one.guidance_scale if fixed is None else float(fixed)) for one in draws
            ]
        return values

    def states(self, indices: Sequence[int], *, keep_all: bool = False) -> States:
        """Sample trajectories together and return their kept states, trajectory by trajectory.

        Keys: `call.*` the student's inputs [N, ...], `maker.*` those from which some of them are made again,
        `negative.*` those of the negative prompt, `pred_guided` [N, ...],
        `energy` its squared distance from the prediction without guidance [N], `mask` where the scheduler does not see
        all of a prediction, `guidance_scale`, `trajectory`, `condition`, `step` [N]. All are on the CPU.
        """
        draws = [draw(self.config, self.conditions, index) for index in indices]
        known = self._known(draws)
        targets = self._targets(draws, self._led(draws, known))
        chosen = [self._kept(one, len(targets), keep_all=keep_all) for one in draws]
        rows: list[list[States]] = [[] for _ in draws]
        for visit, target in enumerate(targets):
            keeping = [row for row, steps in enumerate(chosen) if visit in steps]
            if keeping:
                state = self._state(target, len(draws))
                for row in keeping:
                    rows[row].append({name: value[row].to("cpu", copy=True) for name, value in state.items()})
        parts = []
        for row, one in enumerate(draws):
            part = {name: torch.stack([state[name] for state in rows[row]]) for name in rows[row][0]}
            count, fixed = len(chosen[row]), {name: value[row].cpu() for name, value in known.items()}
            part |= {name: value.expand(count, *value.shape) for name, value in fixed.items()}
            part["step"] = torch.tensor(chosen[row])
            numbers = {"trajectory": one.index, "condition": one.condition}
            part |= {name: torch.tensor([value] * count) for name, value in numbers.items()}
            parts.append(part)
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _kept(self, one: Draw, visits: int, *, keep_all: bool) -> list[int]:
        return [*range(visits)] if keep_all else kept_steps(self.config, one.index, visits)

    def _known(self, draws: list[Draw]) -> States:
        """Return what is decided before sampling: scales [B] and conditions of negative prompts [B, ...]."""
        values = {"guidance_scale": [one.guidance_scale for one in draws]}
        values |= {f"dial.{name}": many for name, many in self.dial_values(draws).items()}
        return self._negative(draws) | {name: torch.tensor(many) for name, many in values.items()}

    @torch.no_grad()
    def _targets(self, draws: list[Draw], along: Sequence[Step]) -> list[Target]:
        """Return what the denoiser would have to answer at each of its visits, for all images."""
        watch = self._watch(draws, self.config.sampling_steps, along)
        targets = watch.targets(None if self.identity else watch.maps())
        self.visits = len(targets)
        return [targets[number] for number in sorted(targets) if targets[number].called.denoiser == self.name]

    def _state(self, target: Target, images: int) -> States:
        """Return the states of all images at one visit."""
        called = target.called
        self._check_static(called.call.static, images)
        inputs = self.replay.rows(called.call, images)
        state: States = {}
        for one in self.makings:
            own = one.own(target, inputs, images)
            state |= {f"maker.{one.maker.component}.{name}": value for name, value in own.items()}
            inputs = one.maker.without_made(inputs)
        state |= {f"call.{name}": value for name, value in inputs.items()}
        state["pred_guided"] = by_image(unpacked(called.answer, target.answer), images)
        state["energy"] = energy_of(by_image(called.answer, images), state["pred_guided"])
        if target.mask is not None and not target.mask.all():
            state["mask"] = by_image(unpacked(called.answer, target.mask.float()), images) > 0
        return state

    def _check_static(self, static: dict[str, Any], images: int) -> None:
        """Raise ModelError where an argument that is kept once for all states differs; lists may go with the batch."""
        for name, value in static.items():
            comparable = images == self.images or not isinstance(value, (list, tuple))
            if comparable and name not in self.replay.left_out:
                check_same(name, self.static.get(name), value)

    def _negative(self, draws: list[Draw]) -> States:
        """Return the conditions of the draws' negative prompts [B, ...]."""
        if not self.config.negatives:
            return {}
        call = self.switch.off(self._call(draws, self.config.sampling_steps))
        with self.switch.without(self.pipe):
            found = negative_conditions(self.pipe, type(self.pipe), call, self.spec)
        return {f"negative.{name}": value for name, value in found.items()}

    def header(self) -> dict[str, Any]:
        """Return what a store says of its trajectories."""
        prompts = hashlib.sha256("\n".join(self.conditions).encode()).hexdigest()
        # only where there are any, so that the stores of other pipelines can be gone on with
        more: dict[str, Any] = {"others": others} if (others := others_of(self.pipe, self.denoiser)) else {}
        if added := additions(self.pipe):
            more["added"] = added
        if self.makings:
            more["makers"] = [one.to_dict() for one in self.makers]
        if self.guider:
            more["guider"] = guider_of(self.pipe, {self.first, *self.config.dial_ranges()})
        if self.leader:
            more["follow"] = fingerprint(self.leader)
        return more | {
            "config": self.config.to_dict(),
            "model": fingerprint(self.denoiser),
            "pipeline": type(self.pipe).__name__,
            "encoders": encoders_of(self.pipe),
            "scheduler": scheduler_of(self.pipe),
            "arguments": plain(self.arguments),
            "conditions": len(self.conditions),
            "conditions_sha256": prompts,
            "static": {name: written(value) for name, value in self.static.items()},
            "spec": self.spec.to_dict(),
            "denoiser": self.name,
        }

    def batches(self, numbers: Sequence[int]) -> Iterator[list[int]]:
        """Split trajectories into the batches they are sampled in."""
        size = self.config.record_batch
        yield from ([*numbers[start : start + size]] for start in range(0, len(numbers), size))

    def shard(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Return the tensors of a shard; what never changes along a trajectory is kept once for each."""
        parts = [self.states(batch) for batch in self.batches(numbers)]
        return once_for_each({name: joined(name, [part[name] for part in parts]) for name in parts[0]})
