"""A denoiser spread out over devices: each layer of the adapter lies where its target computes, in both forms.

The second device is torch's `meta`, whose tensors have no numbers, and the check that none meets another's is ours.
"""

import accelerate
import pytest
import torch
from accelerate.hooks import attach_align_device_hook_on_blocks, remove_hook_from_module
from runs import rows, run, settings
from sampling import FILM, assert_close, sample
from sampling import build as built
from test_folding import alike, live, watched
from test_laws import build
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from zoo import pipeline

from guidefold.distillation.freezing import settled
from guidefold.room import device_within, is_offloaded

HERE, THERE = torch.device("cpu"), torch.device("meta")
PARTS = {
    "sdxl": ("up_blocks", "conv_norm_out", "conv_act", "conv_out"),
    "sd3": ("transformer_blocks.1", "norm_out", "proj_out"),
    "wan": ("blocks.1", "norm_out", "proj_out"),
}
COPIES = ("aten._to_copy", "aten.copy_", "aten._foreach_copy_")


class Strict(TorchDispatchMode):
    """Refuses operations on tensors of several devices, but for copies and single numbers."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        devices = {one.device for one in tensors if one.dim() or one.device != HERE}
        assert len(devices) < 2 or str(func).startswith(COPIES), f"{func} of {devices}"
        if func is torch.ops.aten.equal.default and tensors[0].device == THERE:
            return True  # torch would have to look at numbers
        return func(*args, **(kwargs or {}))


def spread_out(denoiser: nn.Module, elsewhere: tuple[str, ...]) -> None:
    """Put the last parts of a denoiser on another device, as accelerate does."""
    names = [name for name, part in denoiser.named_modules() if name and not isinstance(part, nn.ModuleList)]
    outer = [name for name in names if not any(name.startswith(f"{other}.") for other in names)]
    homes = {name: THERE if name.startswith(elsewhere) else HERE for name in outer}
    attach_align_device_hook_on_blocks(denoiser, execution_device=homes, offload=dict.fromkeys(homes, False))
    remove_hook_from_module(denoiser)  # it would bring the prediction back, which has no numbers to bring
    denoiser.hf_device_map = homes


def numbers(denoiser: nn.Module) -> list[torch.Tensor]:
    """Return copies of the weights that have numbers."""
    return [value.detach().clone() for value in denoiser.parameters() if not value.is_meta]


CASES = [("film", 0), ("film", 2), ("cross_attention", 2), ("offset", 2)]


@pytest.mark.parametrize(("design", "rank"), CASES)
@pytest.mark.parametrize("name", PARTS)
def test_layers_lie_where_their_targets_compute(name, design, rank):
    denoiser, call, adapter = build(name, design, rank=rank)
    spread_out(denoiser, PARTS[name])
    call, before = alike(call), numbers(denoiser)
    folding, folded = adapter.attach(denoiser).attachment.place(adapter, denoiser).folding, []
    last = denoiser.get_submodule(adapter.spec.output)
    last.register_forward_pre_hook(lambda *_: folded.append(folding.folded))
    with torch.no_grad(), Strict(), adapter.at(3.0):
        assert denoiser(**call)[0].device == THERE
        with live():
            denoiser(**call)
        if rank and design == "film":
            adapter.fold()
            denoiser(**call)
            adapter.unfold()
    assert folded == [design == "film" and not rank, False, *[True] * (rank and design == "film")]
    assert [layer.up.device for layer in adapter.layers] == [
        device_within(denoiser, target.partition(":")[0]) for target in adapter.layered
    ]
    assert {value.device for part in (adapter.encoder, adapter.heads) for value in part.parameters()} == {HERE}
    assert all(torch.equal(one, other) for one, other in zip(before, numbers(denoiser), strict=True))
    assert not is_offloaded(denoiser) and not settled(settings(), denoiser).gradient_checkpointing


def test_an_adapter_goes_where_its_denoiser_was_sent_though_its_pipeline_is_elsewhere():
    denoiser, call, adapter = build("sd3", "film", rank=0)
    attach_align_device_hook_on_blocks(denoiser, execution_device={"": THERE}, offload={"": False})
    denoiser._hf_hook.io_same_device = False
    adapter.attach(denoiser)
    with torch.no_grad(), Strict(), adapter.at([2.0, 3.0]):
        assert denoiser(**call)[0].device == THERE
    assert {value.device for value in adapter.parameters()} == {THERE}


def test_parts_that_are_mapped_to_one_device_or_to_disk_are_changed_as_a_whole_model(pipe, tmp_path):
    built(pipe, **FILM).attach(pipe)
    expected = sample(pipe)
    for homes, folds in (({"conv_out": "cpu"}, True), ({"conv_out": "cpu", "up_blocks.0": "disk"}, False)):
        other = pipeline()
        parts = {name: "cpu" for name, _ in other.unet.named_children() if name != "up_blocks"}
        homes = parts | {"up_blocks.0": "cpu", "up_blocks.1": "cpu"} | homes
        built(other, **FILM).attach(other)
        accelerate.dispatch_model(other.unet, homes, main_device="cpu", offload_dir=tmp_path, force_hooks=True)
        if folds:
            with watched(other.unet) as noted:
                assert torch.equal(sample(other), expected)
            assert noted == [(0, True)] * 3
        else:
            assert_close(sample(other), expected)
        assert is_offloaded(other.unet) != folds


def test_a_model_with_a_device_map_trains_as_one_without(pipe, store, tmp_path):
    homes = {name: "cpu" for name, _ in pipe.unet.named_children()}
    accelerate.dispatch_model(pipe.unet, homes, main_device="cpu", force_hooks=True)
    for name, model in (("mapped", pipe), ("whole", pipeline())):
        run(model, tmp_path / name, store, steps=1)
    assert rows(tmp_path / "mapped") == rows(tmp_path / "whole")
