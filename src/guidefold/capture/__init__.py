"""What a pipeline does with guidance, found by watching it run."""

from guidefold.capture.observe import Observation, observe

__all__ = ["Observation", "observe"]
