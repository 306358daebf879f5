"""An adapter as a guider of diffusers: usable in modular pipelines, and wherever a pipeline has a guider."""

from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.guiders.guider_utils import BaseGuidance, GuiderOutput

from guidefold.adapters.adapter import Adapter
from guidefold.errors import InputError


class AdapterGuidance(BaseGuidance):
    """Guidance in one pass: runs the condition only, with an adapter at this guidance scale.

    The adapter is attached to the denoiser at the first step, and acts during this guider's calls only. Disabled, the
    guider gives the conditional prediction, as the model without guidance does.
    """

    _input_predictions = ["pred_cond"]  # noqa: RUF012  as in diffusers
    ignore_for_config = ["adapter"]  # noqa: RUF012  a network is not a setting

    @register_to_config
    def __init__(self, guidance_scale: float = 7.5, enabled: bool = True, adapter: Adapter | None = None) -> None:
        super().__init__(enabled=enabled)
        self.guidance_scale, self.adapter = guidance_scale, adapter
        self._negative: dict[str, torch.Tensor] | None = None

    def prepare_models(self, denoiser: torch.nn.Module) -> None:
        """Turn the adapter on for the next call. Raises InputError without one, ModelError if it does not fit."""
        super().prepare_models(denoiser)
        if self.adapter is None:
            raise InputError("this guider has no adapter; make it with AdapterGuidance(adapter=guidefold.load(...))")
        if not self.adapter.attached:
            self.adapter.attach(denoiser)
        self.adapter.enabled = self._enabled
        self.adapter.set(self.guidance_scale, negative=self._negative)

    def cleanup_models(self, denoiser: torch.nn.Module) -> None:
        """Turn the adapter off again."""
        if self.adapter is not None:
            self.adapter.enabled = False

    def prepare_inputs(self, data: Any) -> list[Any]:
        """Return the conditional inputs, and keep the negative prompt's for an adapter that wants them."""
        self._negative = {name: pair[1] for name, pair in data.items() if isinstance(pair, tuple) and len(pair) > 1}
        return [self._prepare_batch(data, 0, "pred_cond")]

    def prepare_inputs_from_block_state(self, data: Any, input_fields: dict[str, Any]) -> list[Any]:
        """Return the conditional inputs, and keep the negative prompt's for an adapter that wants them."""
        pairs = {name: pair[1] for name, pair in input_fields.items() if isinstance(pair, tuple) and len(pair) > 1}
        self._negative = {name: getattr(data, field) for name, field in pairs.items() if hasattr(data, field)}
        return [self._prepare_batch_from_block_state(input_fields, data, 0, "pred_cond")]

    def __call__(self, data: list[Any]) -> Any:
        """Return the one prediction as the guided one."""
        return self.forward(data[0].noise_pred)

    def forward(self, pred_cond: torch.Tensor) -> GuiderOutput:
        return GuiderOutput(pred=pred_cond, pred_cond=pred_cond, pred_uncond=None)

    @property
    def is_conditional(self) -> bool:
        return True

    @property
    def num_conditions(self) -> int:
        """Two, though one runs: several pipelines of diffusers prepare nothing for a guider with one."""
        return 2
