"""What an adapter is: conditions, targets and layers, which compute and know no pipeline and no file."""

from typing import Any

from guidefold.adapters.conditions import ConditionSpec

__all__ = ["Adapter", "ConditionSpec"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Return the whole adapter, which acts and is kept too, to who looks for it here."""
    if name != "Adapter":
        raise AttributeError(f"module 'guidefold.adapters' has no attribute {name!r}")
    from guidefold.keeping.adapter import Adapter

    return Adapter
