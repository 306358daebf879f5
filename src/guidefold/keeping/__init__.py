"""How an adapter is kept: files, the Hub, groups, merging."""

from guidefold.keeping.adapter import Adapter

__all__ = ["Adapter"]
