"""What stands in the way of suggestions and of learning, and the one thing that mends it: `yoloop doctor`."""

from backend.doctor.check import Check, counted
from backend.doctor.examine import examine

__all__ = ["Check", "counted", "examine"]
