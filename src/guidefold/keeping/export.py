"""The part of an adapter that folds into weights, at one guidance scale, as a LoRA file that other programs read.

What depends on timestep or prompt cannot travel: norms, biases and readers stay behind, and the output layer's gates
become one mean of them. The strength is in the weights, so that the file is used at strength 1 and CFG 1.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from guidefold.adapters.readers import reads
from guidefold.errors import InputError, ModelError
from guidefold.files import make_folder, replacing
from guidefold.keeping.adapter import Adapter

Pairs = dict[str, tuple[Tensor, Tensor]]  # a layer's name with the way down and the way up

UNET, SDXL = "UNet2DConditionModel", "text_time"
VERSIONS = {768: ("stable-diffusion-v1", "sd_v1"), 1024: ("stable-diffusion-v2-768-v", "sd_v2")}
FAMILIES = {
    "FluxTransformer2DModel": ("flux-1-dev", "flux1"),
    "SD3Transformer2DModel": ("stable-diffusion-3-medium", "sd3"),
}
LDM_LAYERS = {"conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "conv2": "out_layers.3"}
LDM_ENDS = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
WAN_PIECES = (
    ("attn1.", "self_attn."), ("attn2.", "cross_attn."), (".to_q", ".q"), (".to_k", ".k"), (".to_v", ".v"),
    (".to_out.0", ".o"), (".add_k_proj", ".k_img"), (".add_v_proj", ".v_img"), ("ffn.net.0.proj", "ffn.0"),
    ("ffn.net.2", "ffn.2"),
)  # fmt: skip


def check_file(output: Path, guidance_scale: float) -> None:
    """Raise InputError unless a file can be written there, for a scale that does something."""
    if output.suffix != ".safetensors":
        raise InputError(f"the file is {output.name}; give a name that ends in .safetensors")
    if not 1 < guidance_scale < float("inf"):
        raise InputError(f"guidance_scale is {guidance_scale:g}; give more than 1, at which an adapter changes nothing")


def deltas_of(adapter: Adapter) -> list[str]:
    """Return the layers that have a plain low-rank delta. Raises InputError where there are none to export."""
    if not adapter.deltas:
        raise InputError(
            f"this adapter has nothing that a LoRA file can hold (design {adapter.config.design}, rank "
            f"{adapter.config.rank}); train one of design lora, or of film with deltas, such as --rank 16"
        )
    return adapter.deltas


def check_trained(adapter: Adapter, guidance_scale: float) -> None:
    """Raise InputError for a plain LoRA at another scale than that which it was trained at, if it tells one."""
    scale = adapter.trained.get("scale_min", guidance_scale)
    if adapter.config.design == "lora" and guidance_scale != scale:
        raise InputError(f"this LoRA was trained at guidance scale {scale:g}; give that")


@torch.no_grad()
def foldable(adapter: Adapter, gates: Tensor | None) -> Adapter:
    """Return an adapter of the same shape without what cannot travel; `gates` [rank] are the output layer's mean."""
    deltas_of(adapter)
    made = copy.deepcopy(adapter)
    if made.film is not None:
        made.film.head.weight.zero_()
        made.film.head.bias.zero_()
    made.heads.weight.zero_()
    made.heads.bias.zero_()
    layers: Any = made.layers
    for name, layer in zip(made.layered, layers, strict=True):
        if reads(name):
            layer.up.zero_()
    if gates is not None:
        made.heads.bias[-len(gates) :] = gates
    return made


@torch.no_grad()
def pairs_of(adapter: Adapter, guidance_scale: float) -> Pairs:
    """Return what a `foldable` adapter adds to the layers' weights at a scale, counted from 1, in float32."""
    strength, deltas, pairs = torch.tensor(guidance_scale - 1), set(adapter.deltas), {}
    layers: Any = adapter.layers
    for name, layer in zip(adapter.layered, layers, strict=True):
        if name in deltas:
            up = layer.up.float() * strength.tanh()
            pairs[name] = layer.down.float(), up if layer.down.dim() == 2 else up[..., None, None]
        elif not reads(name):
            gates = (1 + adapter.heads.bias[-layer.up.shape[1] :].float()) * strength
            pairs[name] = shortest(layer.folded(gates.cpu()).float())
    return {name: (down.cpu().contiguous(), up.cpu().contiguous()) for name, (down, up) in pairs.items()}


def shortest(update: Tensor) -> tuple[Tensor, Tensor]:
    """Return an update [D_out, D_in(, K, K)] as a pair of the lowest rank that holds all of it."""
    left, sizes, right = torch.linalg.svd(update.flatten(1), full_matrices=False)
    root = sizes.sqrt()
    down, up = (root[:, None] * right).view(-1, *update.shape[1:]), left * root
    return down, up if update.dim() == 2 else up[..., None, None]


def of_one_rank(pairs: Pairs) -> Pairs:
    """Return pairs padded with zeros to the highest rank among them, for programs that expect one."""
    rank = max(len(down) for down, _ in pairs.values())

    def padded(down: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        more = rank - len(down)
        wider = torch.cat([up, up.new_zeros(up.shape[0], more, *up.shape[2:])], dim=1)
        return torch.cat([down, down.new_zeros(more, *down.shape[1:])]), wider

    return {name: padded(*pair) for name, pair in pairs.items()}


def format_for(denoiser: nn.Module, wanted: str | None) -> str:
    """Return the format of a denoiser's files. Raises InputError for one that nobody reads."""
    unet = type(denoiser).__name__ == UNET
    if wanted == "kohya" and not unet:
        raise InputError(f"kohya names are for UNets, and this is a {type(denoiser).__name__}; give --format diffusers")
    return wanted or ("kohya" if unet else "diffusers")


def named(pairs: Pairs, denoiser: nn.Module, style: str) -> dict[str, Tensor]:
    """Return a file's tensors, half precise: kohya's names for UNets, PEFT's for others, Wan's own for Wan."""
    kind, config = type(denoiser).__name__, denoiser.config
    ends = ("lora_down", "lora_up") if style == "kohya" else ("lora_A", "lora_B")
    if style == "kohya":
        pairs = of_one_rank(pairs)
        ldm = getattr(config, "addition_embed_type", None) == SDXL
        names = {name: ldm_name(name, denoiser) if ldm else name for name in pairs}
        keys = {name: f"lora_unet_{other.replace('.', '_')}" for name, other in names.items()}
    elif kind.startswith("Wan"):
        keys = {name: f"diffusion_model.{wan_name(name)}" for name in pairs}
    else:
        keys = {name: f"{'unet' if kind == UNET else 'transformer'}.{name}" for name in pairs}
    return {
        f"{keys[name]}.{end}.weight": value.half().contiguous()
        for name, pair in pairs.items()
        for end, value in zip(ends, pair, strict=True)
    }


def wan_name(name: str) -> str:
    """Return the name of a layer in Wan's own code."""
    if name == "proj_out":
        return "head.head"
    for ours, theirs in WAN_PIECES:
        name = name.replace(ours, theirs)
    return name


def ldm_name(name: str, denoiser: Any) -> str:
    """Return the name of a UNet's layer in latent diffusion's own code, which numbers all blocks in a row."""
    if name in LDM_ENDS:
        return LDM_ENDS[name]
    where, *rest = name.split(".")
    if where == "mid_block":
        kind, place, *leaf = rest
        number = f"middle_block.{1 if kind == 'attentions' else 2 * int(place)}"
    else:
        block, kind, place, *leaf = rest
        layers = denoiser.config.layers_per_block
        if where == "down_blocks":
            first = 1 + int(block) * (layers + 1)
            number = f"input_blocks.{first + (layers if kind == 'downsamplers' else int(place))}"
        else:
            first = int(block) * (layers + 1)
            number = f"output_blocks.{first + (layers if kind == 'upsamplers' else int(place))}"
        attends = where == "up_blocks" and hasattr(denoiser.get_submodule(f"{where}.{block}"), "attentions")
        number += f".{(1 + attends) if kind == 'upsamplers' else int(kind == 'attentions')}"
    if kind == "downsamplers":
        leaf = ["op"]
    if kind == "resnets":
        leaf = [LDM_LAYERS.get(leaf[0], "skip_connection")]
    return ".".join([number, *leaf])


def described(denoiser: Any, name: str) -> dict[str, str]:
    """Return what front-ends look for in a LoRA file's metadata."""
    config, kind = denoiser.config, type(denoiser).__name__
    if kind == UNET:
        xl = getattr(config, "addition_embed_type", None) == SDXL
        known = ("stable-diffusion-xl-v1-base", "sdxl_base_v1-0") if xl else VERSIONS.get(config.cross_attention_dim)
    else:
        known = FAMILIES.get(kind)
    found = {"modelspec.title": name, "ss_output_name": name}
    if known:
        found |= {"modelspec.architecture": f"{known[0]}/lora", "ss_base_model_version": known[1]}
    return found


def write(tensors: dict[str, Tensor], output: Path, metadata: dict[str, Any]) -> Path:
    """Write a file completely or not at all. Raises InputError where it cannot be, ModelError for numbers too large."""
    if bad := next((name for name, value in tensors.items() if not bool(value.isfinite().all())), None):
        raise ModelError(f"{bad} does not fit half precision; export at a lower guidance scale")
    make_folder(output.parent)
    try:
        with replacing(output) as draft:
            save_file(tensors, draft, metadata={"format": "pt", **{key: str(value) for key, value in metadata.items()}})
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot write {output}: {error}; make room, or give another file") from error
    return output
