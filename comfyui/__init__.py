"""Guidefold's nodes for ComfyUI: one pass a step in place of two, with KSampler's cfg as the dial."""

from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
