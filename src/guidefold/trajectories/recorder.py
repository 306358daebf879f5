"""Record what a teacher's guided sampling visits: the student's inputs and the guided predictions."""

import hashlib
import inspect
import json
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from guidefold.adapters.conditions import ConditionSpec
from guidefold.config import TrajectoryConfig
from guidefold.denoiser import OFF, Tape, find_denoiser, guidance_argument, predict, taped
from guidefold.errors import InputError, ModelError
from guidefold.guidance import PerImageScale
from guidefold.trajectories.conditions import Draw, draw, kept_steps

States = dict[str, Tensor]

DRAWN = ("prompt", "num_inference_steps", "generator", "output_type")


def fingerprint(model: nn.Module) -> str:
    """Return a short hash of a model's weights, by name, shape and a sample of the values of each."""
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, value in sorted(model.state_dict().items()):
        sample = value.detach().reshape(-1)[:: max(1, value.numel() // 64)].float().cpu()
        digest.update(f"{name}{tuple(value.shape)}".encode() + sample.numpy().tobytes())
    return digest.hexdigest()[:16]


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return values as JSON gives them back; objects become the name of their type, the same in every process."""
    return json.loads(json.dumps(values, default=lambda value: type(value).__name__))


class Recorder:
    """Runs a pipeline with guidance and returns the states its student would have to answer.

    Trajectory i depends on (config.seed, i) and on the batch it is sampled in, which `config.record_batch` fixes.
    """

    def __init__(self, pipe: Any, conditions: Sequence[str], config: TrajectoryConfig, **arguments: Any) -> None:
        if not conditions:
            raise InputError("there are no conditions to record; give at least one prompt")
        self.pipe, self.conditions, self.config, self.arguments = pipe, conditions, config, arguments
        self.denoiser = find_denoiser(pipe)
        self.argument = guidance_argument(pipe)
        known = inspect.signature(type(pipe).__call__).parameters
        if "prompt" not in known:
            raise ModelError(f"{type(pipe).__name__}.__call__ takes no prompt; such pipelines cannot be recorded yet")
        for name in arguments:
            if name in (*DRAWN, self.argument) or name not in known:
                why = "is drawn for each trajectory" if name in known else f"is none of {type(pipe).__name__}.__call__"
                raise InputError(f"the argument {name} {why}; leave it out")
        self.static, self.spec = self._observe()

    def _observe(self) -> tuple[dict[str, Any], ConditionSpec]:
        """Watch two images for two steps, and verify that what will be recorded is what guidance decides."""
        first = draw(self.config, self.conditions, 0)
        pair = [first, Draw(**{**vars(first), "guidance_scale": first.guidance_scale + 1, "seed": first.seed + 1})]
        guided, bare = self._tapes(pair, steps=2)
        alone = self._run(pair, 2, first.guidance_scale)
        error = (alone.received[0][0] - guided.received[0][0]).abs().max()
        if error > 1e-3 * alone.received[0].abs().max() and self.config.record_batch > 1:
            raise ModelError(
                f"{type(self.pipe).__name__} computes guidance with one scale for a whole batch; set record_batch to 1"
            )
        call = bare.calls[0]
        for name, value in call.static.items():
            if not isinstance(value, (bool, int, float, str, type(None))):
                kind = type(value).__name__
                raise ModelError(f"the denoiser's argument {name} is a {kind}; such arguments cannot be recorded yet")
        return call.static, ConditionSpec.observe(self.denoiser, call)

    def _run(
        self, draws: list[Draw], steps: int, scale: float, answers: list[Tensor] | None = None, **tape: Any
    ) -> Tape:
        generators = [torch.Generator().manual_seed(one.seed) for one in draws]
        call = dict(
            prompt=[one.prompt for one in draws], num_inference_steps=steps, generator=generators, output_type="latent"
        )
        call |= {self.argument: scale} | self.arguments
        with torch.no_grad(), taped(self.pipe, answers=answers, **tape) as record:
            self.pipe(**call)
        return record

    def _tapes(self, draws: list[Draw], steps: int) -> tuple[Tape, Tape]:
        """Return a guided run, and the run without guidance that its predictions are answers to."""
        guided = self._run(draws, steps, PerImageScale([one.guidance_scale for one in draws]))
        bare = self._run(draws, steps, OFF, answers=guided.received)
        name = type(self.pipe).__name__
        if not all(one.isfinite().all() for one in guided.received):
            raise ModelError(f"{name} predicts values that are not finite; load it in float32 or bfloat16")
        if guided.rows < 2 * bare.rows:
            raise ModelError(
                f"{name} runs its denoiser once per step even with {self.argument} above 1; "
                "it has no guidance to fold, or an adapter attached"
            )
        if len(bare.calls) != len(guided.received):
            raise ModelError(
                f"{name} calls its denoiser {len(bare.calls)} times in {len(guided.received)} steps without guidance"
            )
        if not all(torch.equal(a, b) for a, b in zip(bare.received, guided.received, strict=True)):
            raise ModelError(
                f"{name} changes the denoiser's output on the way to its scheduler; "
                "such pipelines cannot be recorded yet"
            )
        return guided, bare

    def states(self, indices: Sequence[int], *, keep_all: bool = False) -> States:
        """Sample trajectories together and return their kept states, trajectory by trajectory.

        Keys: `call.*` the student's inputs [N, ...], `pred_guided` and `pred_cond` [N, ...], `guidance_scale`,
        `trajectory`, `condition`, `step` [N].
        """
        draws = [draw(self.config, self.conditions, index) for index in indices]
        steps = self.config.sampling_steps
        guided, bare = self._tapes(draws, steps)
        rows, parts = len(draws), []
        calls = [call.batched() for call in bare.calls]
        for row, one in enumerate(draws):
            kept = range(steps) if keep_all else kept_steps(self.config, one.index)
            chosen = [k for k in kept if k < len(calls)]
            part = {f"call.{name}": torch.stack([calls[k][name][row] for k in chosen]) for name in calls[0]}
            part["pred_guided"] = torch.stack([guided.received[k][row] for k in chosen])
            part["step"] = torch.tensor(chosen)
            numbers = {"guidance_scale": one.guidance_scale, "trajectory": one.index, "condition": one.condition}
            part |= {name: torch.tensor([value] * len(chosen)) for name, value in numbers.items()}
            parts.append(part)
        states = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        states["pred_cond"] = self.bare_predictions(states, rows)
        return states

    @torch.no_grad()
    def bare_predictions(self, states: States, rows: int) -> Tensor:
        """Return the conditional predictions [N, ...] at states, computed `rows` at a time."""
        inputs = inputs_of(states)
        chunks = range(0, len(states["step"]), rows)
        parts = [predict(self.denoiser, {k: v[i : i + rows] for k, v in inputs.items()}, self.static) for i in chunks]
        return torch.cat(parts)

    def header(self) -> dict[str, Any]:
        """Return what a store says of its trajectories."""
        prompts = hashlib.sha256("\n".join(self.conditions).encode()).hexdigest()
        return {
            "config": self.config.to_dict(),
            "model": fingerprint(self.denoiser),
            "pipeline": type(self.pipe).__name__,
            "encoders": {name: fingerprint(module) for name, module in self._encoders().items()},
            "scheduler": self._scheduler(),
            "arguments": plain(self.arguments),
            "conditions": len(self.conditions),
            "conditions_sha256": prompts,
            "static": plain(self.static),
            "spec": self.spec.to_dict(),
        }

    def _encoders(self) -> dict[str, nn.Module]:
        """Return what turns prompts into conditions."""
        parts = {name: part for name, part in self.pipe.components.items() if isinstance(part, nn.Module)}
        return {name: part for name, part in parts.items() if "encoder" in name}

    def _scheduler(self) -> dict[str, Any]:
        settings = plain(dict(self.pipe.scheduler.config))
        known = {name: value for name, value in settings.items() if not name.startswith("_")}
        return {"class": type(self.pipe.scheduler).__name__, **known}

    def batches(self, numbers: Sequence[int]) -> Iterator[list[int]]:
        """Split trajectories into the batches they are sampled in."""
        size = self.config.record_batch
        yield from ([*numbers[start : start + size]] for start in range(0, len(numbers), size))

    def shard(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """Return the tensors of a shard; what never changes along a trajectory is kept once for each."""
        parts = [self.states(batch) for batch in self.batches(numbers)]
        states = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        first = torch.cat([torch.tensor([True]), states["trajectory"].diff() != 0])
        row = first.cumsum(0) - 1
        shard = {}
        for name, value in states.items():
            once = value[first]
            constant = name not in ("trajectory", "step") and torch.equal(once[row], value)
            shard[f"trajectory.{name}" if constant else name] = (once if constant else value).cpu().contiguous()
        return shard


def inputs_of(states: States) -> dict[str, Tensor]:
    """Return the denoiser's tensors among the keys of states."""
    return {name.removeprefix("call."): value for name, value in states.items() if name.startswith("call.")}
