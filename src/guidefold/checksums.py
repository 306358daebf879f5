"""Checksums of tensors, over their bytes: as fast as the disk, whatever they are."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def checksum(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """Return the sha256 of a text and of tensors on the CPU: names, types, shapes and bytes, in the order of names."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
