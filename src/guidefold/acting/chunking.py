"""Feed-forward layers that work in chunks of a batch, where each image is changed in its own way."""

from collections.abc import Iterator

from torch import nn


def whole_batches(denoiser: nn.Module) -> Iterator[None] | None:
    """Let the blocks of a denoiser work on whole batches, until what is returned is closed; None if they do anyway.

    A layer that is given a part of a batch cannot tell which images it holds. `enable_forward_chunking` saves memory,
    so it is left alone wherever all images are changed alike.
    """
    chunked = [module for module in denoiser.modules() if getattr(module, "_chunk_size", None) is not None]
    if not chunked:
        return None
    running = without_chunks(chunked)
    next(running)
    return running


def without_chunks(modules: list[nn.Module]) -> Iterator[None]:
    sizes = [module._chunk_size for module in modules]
    for module in modules:
        module._chunk_size = None  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        for module, size in zip(modules, sizes, strict=True):
            module._chunk_size = size
