"""The adapter: outside the denoiser, acting on it through hooks, so that nothing of the denoiser changes."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from guidefold.acting.compiling import look_for_hooks
from guidefold.acting.fitting import check
from guidefold.acting.hooks import Attachment, Target, batch_first, follow, fusions, shaped_like, tokens_of
from guidefold.acting.negative import Negative, Swaps, rows_of_negative
from guidefold.adapters.conditions import ConditionEncoder, ConditionSpec, conditions_of
from guidefold.adapters.heads import Heads, make_layers
from guidefold.adapters.layers import DESIGNS, CrossAttention, Layer
from guidefold.adapters.readers import find_readers, module_of, negative_tokens, read_negative, reads
from guidefold.adapters.scales import Scale, as_scales
from guidefold.adapters.targets import find_targets, is_attention, shape_of, unwrapped
from guidefold.config import AdapterConfig
from guidefold.denoiser import argument_names, chosen_denoiser, read_call
from guidefold.errors import InputError, ModelError


class Adapter(nn.Module):
    """Adapter guidance distillation (2503.07274): one forward pass that predicts what guidance would have.

    `shapes` names the targets with their widths (see `shape_of`). Constructing changes nothing; `attach` acts.
    """

    def __init__(self, config: AdapterConfig, spec: ConditionSpec, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.config, self.spec, self.shapes = config, spec, shapes
        self.trained: dict[str, Any] = {}
        self.encoder = ConditionEncoder(spec, config.width)
        self.layers = make_layers(config, shapes, spec.output)
        self.heads = Heads(config, shapes, spec.output)
        memory = sum(spec.tokens.values()) if DESIGNS[config.design] is CrossAttention else 0
        self.memory = nn.Linear(max(spec.tokens.values(), default=0), 2 * config.rank) if memory else None
        self.enabled = True
        self._scale: Tensor | None = None
        self._negative: Negative | None = None
        self._once = False
        self._attachment: Attachment | None = None

    @classmethod
    def build(cls, denoiser: nn.Module, spec: ConditionSpec, config: AdapterConfig | None = None) -> Self:
        """Return a new adapter for a denoiser. Raises ModelError when there is nothing to adapt."""
        config = config or AdapterConfig()
        linears = DESIGNS[config.design].on_linears
        # readers first: they compare what the base's own attention puts out
        targets = find_readers(denoiser, spec)
        targets |= find_targets(denoiser, linears=linears, target_modules=config.target_modules)
        if spec.output is not None:
            targets.pop(spec.output, None)
            targets[spec.output] = denoiser.get_submodule(spec.output)  # the last
        return cls(config, spec, {name: shape_of(module) for name, module in targets.items()})

    @property
    def attached(self) -> bool:
        return self._attachment is not None

    @property
    def guidance_scale(self) -> Tensor | None:
        """The guidance scale [1], one per image [B], or for D dials [B, D]; None before it was set.

        A scale that does nothing at 0 is kept one higher: here 1 is always the model without guidance.
        """
        return self._scale

    @guidance_scale.setter
    def guidance_scale(self, value: Scale) -> None:
        self._scale = self.checked(value)

    def checked(self, value: Scale) -> Tensor:
        """Return scales as `as_scales` does, where the adapter is: a copy at every step would make a GPU wait."""
        trained = self.trained.get("scale_min", -math.inf), self.trained.get("scale_max", math.inf)
        return as_scales(value, self.spec.offs, trained).to(self.heads.weight.device)

    def attach(self, model: Any) -> Self:
        """Act on a pipeline, whose guidance then costs no second pass, or on a bare denoiser; return self.

        Further pipelines of the same denoiser may follow, such as text-to-image and image-to-image. Everything is
        checked before anything changes. Raises ModelError when the model is compiled, already has an adapter, or does
        not have the targets this adapter was made for.
        """
        from guidefold.acting.pipeline import become, folding, is_pipeline

        pipe = model if is_pipeline(model) else None
        denoiser = chosen_denoiser(model, self.spec.denoiser)
        attachment = self._attachment
        if attachment is None or not attachment.takes(pipe, denoiser):
            check(self, denoiser)
            attachment = Attachment(denoiser, argument_names(type(denoiser)), scoped=pipe is not None)
        if pipe is not None:
            folded = folding(pipe, self)
            # what is offloaded tells no device before it is called
            device = None if denoiser.device == torch.device("meta") else denoiser.device
            self.to(device, denoiser.dtype)  # pyright: ignore[reportCallIssue, reportArgumentType]
            self.requires_grad_(False)
            become(pipe, *folded)
            attachment.pipes.append(pipe)
        if not self.attached:
            self._act(attachment)
        return self

    def _act(self, attachment: Attachment) -> None:
        """Put the hooks on a denoiser."""
        look_for_hooks()
        denoiser = attachment.denoiser
        # not a child: offloading and casting of the denoiser must not see the adapter
        object.__setattr__(self, "_attachment", attachment)
        attachment.handles.append(denoiser.register_forward_pre_hook(self._pre_hook(attachment), with_kwargs=True))
        attachment.handles.append(denoiser.register_forward_hook(self._post_hook()))
        attachment.targets = [Target() for _ in self.shapes]
        pairs = zip(attachment.targets, self.layers, strict=True)
        # not on what LoRA has wrapped around them, which goes when LoRA is unloaded
        modules = {name: unwrapped(module_of(denoiser, name)) for name in self.shapes}
        hooks = {name: self._hook_for(name, modules[name], *pair) for name, pair in zip(modules, pairs, strict=True)}  # pyright: ignore[reportArgumentType]
        for layer, hook in zip(modules.values(), hooks.values(), strict=True):
            attachment.handles.append(layer.register_forward_hook(hook, with_kwargs=True))
        attachment.fusions = fusions(denoiser, hooks)
        follow(attachment)

    def detach(self) -> None:
        """Undo `attach`: the model is what it was before. Raises ModelError when not attached."""
        from guidefold.acting.pipeline import unfold

        if self._attachment is None:
            raise ModelError("this adapter is not attached")
        for handle in self._attachment.handles:
            handle.remove()
        for pipe in self._attachment.pipes:
            unfold(pipe, self)
        self._attachment = None

    @contextmanager
    def disabled(self) -> Iterator[Self]:
        """Give back the teacher, bit for bit, for a while."""
        before, self.enabled = self.enabled, False
        try:
            yield self
        finally:
            self.enabled = before

    def set(self, guidance_scale: Scale, *, negative: Negative | None = None) -> None:
        """Set the guidance scale, and the conditions of a negative prompt by the denoiser's names."""
        self._scale, self._negative, self._once = self.checked(guidance_scale), negative, False
        if self._attachment is not None:
            follow(self._attachment)  # here too, because the compiler cannot trace it

    def set_once(self, guidance_scale: Scale, *, negative: Negative | None = None) -> None:
        """Act in the denoiser's next call alone, at this guidance scale, and in no other that is given none."""
        assert self._attachment is not None
        self._attachment.scoped = True
        self.set(guidance_scale, negative=negative)
        self._once = True

    def reset(self) -> None:
        """Forget the guidance scale and the negative prompt."""
        self._scale, self._negative, self._once = None, None, False

    @contextmanager
    def at(self, guidance_scale: Scale, *, negative: Negative | None = None) -> Iterator[Self]:
        """Set the guidance scale and the negative prompt's conditions for a while."""
        before = self._scale, self._negative
        self.set(guidance_scale, negative=negative)
        try:
            yield self
        finally:
            self._scale, self._negative = before

    def _pre_hook(self, attachment: Attachment) -> Any:
        # a function, not a method: a copied denoiser would call a method of a copied adapter, attached to nothing
        def before(denoiser: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            if self._attachment is attachment:
                self._before(attachment, denoiser, args, kwargs)

        vars(before).update(adapter=self, attachment=attachment)
        return before

    def _post_hook(self) -> Any:
        def after(denoiser: nn.Module, args: tuple, output: Any) -> None:
            # checkpointed blocks run again in the backward pass
            if self._attachment is not None and not torch.is_grad_enabled():
                self._attachment.clear()

        return after

    def _before(self, attachment: Attachment, denoiser: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Encode the conditions of a call, once for all targets."""
        attachment.clear()  # a call that was interrupted may have left them
        scale, negative = self._scale, self._negative
        if self._once:
            self.reset()
        if not self.enabled or (attachment.scoped and scale is None):
            return
        if scale is None:
            raise InputError("the adapter has no guidance scale yet; set adapter.guidance_scale, or call the pipeline")
        follow(attachment)
        call = read_call(denoiser, args, kwargs, attachment.names)
        latents = call.tensors[call.latents]
        if self.heads.weight.device != latents.device:
            self.to(latents.device)
        scale, rows = scale.to(latents.device), call.rows
        if rows % scale.shape[0]:
            raise InputError(f"{scale.shape[0]} guidance scales for {rows} images; give one, or one per image")
        scale = scale.repeat_interleave(rows // scale.shape[0], dim=0)
        conditions = conditions_of(call)
        if self.spec.negative:
            if isinstance(negative, Swaps):
                negative = negative.conditions(denoiser, args, kwargs, attachment.names)
            conditions |= rows_of_negative(self.spec, negative, rows)
        attachment.rows = rows if latents.dim() == 4 else 0
        strength = (scale.reshape(rows, -1)[:, : self.spec.anchors] - 1).sum(1, keepdim=True)
        parts = self.heads.parts(self.encoder(scale, conditions), strength, latents.dtype)
        for target, part in zip(attachment.targets, parts, strict=True):
            target.modulation = part
        attachment.strength = self.heads.inner(strength)
        attachment.tokens = self._memory_of(conditions, parts[0])
        attachment.negative = negative_tokens(conditions)

    def _memory_of(self, tensors: dict[str, Tensor], like: Tensor) -> Tensor:
        """Return keys and values [B, T, 2 * rank] of the first token sequence, shared by all targets."""
        if self.memory is None:
            return like.new_zeros(like.shape[0], 0, like.shape[1])
        return self.memory(tensors[next(iter(self.spec.tokens))].to(self.memory.weight.dtype))

    def _hook_for(self, name: str, module: nn.Module, target: Target, layer: Layer) -> Any:
        return self._reader_hook(target, layer) if reads(name) else self._hook(target, layer, is_attention(module))

    def _reader_hook(self, target: Target, layer: Layer) -> Any:
        def change(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
            attachment = self._attachment
            if not self.enabled or attachment is None or target.modulation is None:
                return None
            other = read_negative(module, args, kwargs, attachment.negative)
            if other is None:
                return None
            return layer(output - other, output, target.modulation, attachment.strength, attachment.tokens)

        return change

    def _hook(self, target: Target, layer: Layer, attends: bool) -> Any:
        def change(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> Any:
            attachment = self._attachment
            if not self.enabled or attachment is None:
                return None
            if target.modulation is None:
                return None  # a ControlNet that shares this layer calls it, not the denoiser
            inputs = args[0] if args else kwargs["hidden_states"]
            # joint attention answers with both streams: the first is the picture's
            first = output[0] if isinstance(output, tuple) else output
            if hasattr(module, "_diffusers_hook"):
                first = first.clone()  # a cache of diffusers may keep it and answer with it again
            tokens = tokens_of(inputs, first) if attends else batch_first(inputs, first, attachment.rows)
            changed = layer(*tokens, target.modulation, attachment.strength, attachment.tokens)
            if attends:
                changed = shaped_like(first, inputs, changed)
            elif changed.shape != first.shape:
                changed = changed.transpose(0, 1)
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        return change

    def __deepcopy__(self, memo: dict) -> "Adapter":
        """Copy the weights, never the attachment: a copied model shares the adapter of the original."""
        copy = Adapter(self.config, self.spec, dict(self.shapes))
        copy.load_state_dict(self.state_dict())
        copy.trained = dict(self.trained)
        return copy

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write config.json, model.safetensors and a model card to a folder."""
        from guidefold.keeping import hub

        return hub.save_pretrained(self, folder)

    @staticmethod
    def from_pretrained(source: str | Path) -> "Adapter":
        """Load an adapter from a folder or the Hub. Raises InputError or ModelError."""
        from guidefold.keeping import hub

        return hub.from_pretrained(source)

    def push_to_hub(self, repository: str, *, private: bool = False) -> str:
        """Upload to a Hub repository such as `me/sd-folded`, with a model card, and return the address."""
        from guidefold.keeping import hub

        return hub.push_to_hub(self, repository, private=private)
