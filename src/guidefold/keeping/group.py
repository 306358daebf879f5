"""Several adapters for one pipeline: one for each denoiser that guidance runs, attached and saved together."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from guidefold.errors import ModelError
from guidefold.keeping.adapter import Adapter

INDEX = "adapters.json"


class AdapterGroup:
    """Adapters by the pipeline's component that each is for, such as `transformer` and `transformer_2`."""

    def __init__(self, adapters: dict[str, Adapter]) -> None:
        self.adapters = adapters

    @property
    def attached(self) -> bool:
        return all(adapter.attached for adapter in self.adapters.values())

    def attach(self, pipe: Any) -> Self:
        """Attach all adapters to a pipeline, or none. Raises ModelError where one does not fit."""
        done: list[Adapter] = []
        try:
            for adapter in self.adapters.values():
                done.append(adapter.attach(pipe))
        except Exception:
            for adapter in reversed(done):
                adapter.detach()
            raise
        return self

    def detach(self) -> None:
        """Undo `attach`, for those still attached. Raises ModelError when none is."""
        attached = [adapter for adapter in self.adapters.values() if adapter.attached]
        if not attached:
            raise ModelError("these adapters are not attached")
        for adapter in attached:
            adapter.detach()

    @contextmanager
    def disabled(self) -> Iterator[Self]:
        """Give back the teacher, bit for bit, for a while."""
        with ExitStack() as stack:
            for adapter in self.adapters.values():
                stack.enter_context(adapter.disabled())
            yield self

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write every adapter to a folder of its own, and an index."""
        folder = Path(folder)
        for name, adapter in self.adapters.items():
            adapter.save_pretrained(folder / name)
        partial = folder / f"{INDEX}.partial"
        partial.write_text(json.dumps(list(self.adapters), indent=2) + "\n", encoding="utf-8")
        partial.replace(folder / INDEX)
        return folder

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Load what `save_pretrained` wrote. Raises ModelError where the index is damaged."""
        folder = Path(folder)
        try:
            names = [str(name) for name in json.loads((folder / INDEX).read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(f"{folder / INDEX} lists no adapters ({error}); save them again") from error
        return cls({name: Adapter.from_pretrained(folder / name) for name in names})

    def push_to_hub(self, repository: str, *, private: bool = False) -> str:
        """Upload to a Hub repository such as `me/wan-folded`, with model cards, and return the address."""
        from guidefold.keeping import hub

        return hub.push_to_hub(self, repository, private=private)
