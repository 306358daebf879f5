"""An adapter as a guider of diffusers: usable in modular pipelines, and wherever a pipeline has a guider."""

from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.guiders.guider_utils import BaseGuidance, GuiderOutput

from guidefold.acting.acting import Acting
from guidefold.acting.attachment import acting_on
from guidefold.acting.swaps import Swaps
from guidefold.errors import InputError, ModelError


class AdapterGuidance(BaseGuidance):
    """Guidance in one pass: runs the condition only, with an adapter at this guidance scale.

    The adapter is attached to the denoiser at the first step, and acts during this guider's calls only, in the steps
    from the fraction `start` of them to `stop`. Disabled, and in the other steps, the guider gives the conditional
    prediction, as the model without guidance does.
    """

    _input_predictions = ["pred_cond"]  # noqa: RUF012  as in diffusers
    ignore_for_config = ["adapter"]  # noqa: RUF012  a network is not a setting

    @register_to_config
    def __init__(
        self,
        guidance_scale: float = 7.5,
        start: float = 0.0,
        stop: float = 1.0,
        enabled: bool = True,
        adapter: Acting | None = None,
    ) -> None:
        super().__init__(start, stop, enabled)
        self.guidance_scale, self.adapter = guidance_scale, adapter
        self._swaps = Swaps()

    def prepare_models(self, denoiser: torch.nn.Module) -> None:
        """Turn the adapter on for the next call. Raises InputError without one, ModelError if it does not fit."""
        super().prepare_models(denoiser)
        if self.adapter is None:
            raise InputError("this guider has no adapter; make it with AdapterGuidance(adapter=guidefold.load(...))")
        if not self.adapter.attached:
            self.adapter.attach(denoiser)
        if self.adapter not in acting_on(denoiser):
            raise ModelError("the guider's adapter is attached to another denoiser; call adapter.detach() first")
        if self._enabled and self.is_within_range:
            self.adapter.set_once(self.guidance_scale, negative=self._swaps)

    def cleanup_models(self, denoiser: torch.nn.Module) -> None:
        """Turn the adapter off again."""
        if self.adapter is not None:
            self.adapter.reset()

    def prepare_inputs(self, data: Any) -> list[Any]:
        """Return the conditional inputs, and keep the negative prompt's for an adapter that wants them."""
        self._swaps = Swaps()
        for pair in data.values():
            if isinstance(pair, tuple) and len(pair) > 1:
                self._swaps.add(*pair[:2])
        return [self._prepare_batch(data, 0, "pred_cond")]

    def prepare_inputs_from_block_state(self, data: Any, input_fields: dict[str, Any]) -> list[Any]:
        """Return the conditional inputs, and keep the negative prompt's for an adapter that wants them."""
        self._swaps = Swaps()
        for fields in input_fields.values():
            if isinstance(fields, tuple) and len(fields) > 1 and hasattr(data, fields[1]):
                self._swaps.add(getattr(data, fields[0]), getattr(data, fields[1]))
        return [self._prepare_batch_from_block_state(input_fields, data, 0, "pred_cond")]

    def __call__(self, data: list[Any]) -> Any:
        """Return the one prediction as the guided one."""
        return self.forward(data[0].noise_pred)

    def forward(self, pred_cond: torch.Tensor) -> GuiderOutput:
        return GuiderOutput(pred=pred_cond, pred_cond=pred_cond, pred_uncond=None)

    @property
    def is_within_range(self) -> bool:
        """Whether this step is one that is guided, counted as diffusers' guiders count."""
        if self._num_inference_steps is None:
            return True
        first, end = (int(part * self._num_inference_steps) for part in (self._start, self._stop))
        return first <= self._step < end

    @property
    def is_conditional(self) -> bool:
        return True

    @property
    def num_conditions(self) -> int:
        """Two, though one runs: several pipelines of diffusers prepare nothing for a guider with one."""
        return 2
