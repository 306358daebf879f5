"""Several adapters for one pipeline: one for each denoiser that guidance runs, attached and saved together."""

import json
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from guidefold.errors import InputError, ModelError
from guidefold.files import SEAL, check_plain, make_folder, read_json, replace_text
from guidefold.keeping.adapter import Adapter
from guidefold.keeping.weights import read_description
from guidefold.texts import visible

INDEX = "adapters.json"


class AdapterGroup:
    """Adapters by the pipeline's component that each is for, such as `transformer` and `transformer_2`.

    Raises InputError where there are none, or one is called what no component is.
    """

    def __init__(self, adapters: dict[str, Adapter]) -> None:
        self.adapters = {check_component(name): adapter for name, adapter in adapters.items()}
        if not adapters:
            raise InputError("there are no adapters for a group; give at least one")

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
        """Write every adapter to a folder of its own, and an index that knows their checksums. Raises InputError."""
        folder = make_folder(folder)
        check_plain(folder / INDEX)
        for name, adapter in self.adapters.items():
            adapter.save_pretrained(folder / name)
        index = {name: read_description(folder / name).get(SEAL) for name in self.adapters}
        replace_text(folder / INDEX, json.dumps(index, indent=2) + "\n")
        return folder

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Load what `save_pretrained` wrote. Raises ModelError where the index is damaged or names another place.

        Warns where an adapter is not the one that was saved with the others.
        """
        folder = Path(folder)
        try:
            index = names_in(read_json(folder / INDEX, "a group"))
        except InputError as error:
            raise ModelError(f"{folder / INDEX} lists no adapters ({error}); save them again") from error
        for name, known in index.items():
            if known is not None and known != read_description(folder / name).get(SEAL):
                warnings.warn(f"{folder / name} is not what was saved with the others; save them again", stacklevel=3)
        return cls({name: Adapter.from_pretrained(folder / name) for name in index})

    def push_to_hub(self, repository: str, *, private: bool = False) -> str:
        """Upload to a Hub repository such as `me/wan-folded`, with model cards, and return the address."""
        from guidefold.keeping import hub

        return hub.push_to_hub(self, repository, private=private)


def names_in(index: Any) -> dict[str, str | None]:
    """Return an index's adapters with their checksums. Raises InputError for an empty one and for any other name."""
    if isinstance(index, list):  # as it was written before there were checksums
        index = dict.fromkeys(map(check_component, index))
    if not isinstance(index, dict) or not index:
        raise InputError("it is empty, or no list")
    return {check_component(name): known for name, known in index.items()}


def check_component(name: Any) -> str:
    """Return the name of a pipeline's component, which is a folder's too. Raises InputError for what is none."""
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(f"{visible(name)!r} is no component of a pipeline")
    return name
