"""Versions of a model, kept in MLflow: what was trained, from what, how good it is, and which one serves.

Knows nothing of Label Studio, of Flask or of how a model is trained.
"""

from model_registry.champions import Champions
from model_registry.comparison import Comparison, Estimate, Scored
from model_registry.gate import Decision, decide, decide_together
from model_registry.mlflow_client import configure
from model_registry.registry import Registry, RegistryError
from model_registry.version import Version

__all__ = [
    "Champions",
    "Comparison",
    "Decision",
    "Estimate",
    "Registry",
    "RegistryError",
    "Scored",
    "Version",
    "configure",
    "decide",
    "decide_together",
]
