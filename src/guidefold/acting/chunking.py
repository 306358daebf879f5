"""Feed-forward layers that work in chunks of a batch, where each image is changed in its own way."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def whole_batches(denoiser: nn.Module) -> Iterator[None]:
    """Let the blocks of a denoiser work on whole batches for a while.

    A layer that is given a part of a batch cannot tell which images it holds. `enable_forward_chunking` saves memory,
    so it is left alone wherever all images are changed alike.
    """
    sizes = {module: module._chunk_size for module in denoiser.modules() if vars(module).get("_chunk_size")}
    for module in sizes:
        module._chunk_size = None  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        for module, size in sizes.items():
            module._chunk_size = size
