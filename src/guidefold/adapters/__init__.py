"""Adapters and where they act."""

from guidefold.adapters.adapter import Adapter
from guidefold.adapters.conditions import ConditionSpec

__all__ = ["Adapter", "ConditionSpec"]
