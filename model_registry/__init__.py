"""Versions of a model, kept in MLflow: what was trained, from what, how good it is, and which one serves.

Knows nothing of Label Studio, of Flask or of how a model is trained.
"""

from model_registry.champions import Champions
from model_registry.comparison import Comparison, Estimate, Scored
from model_registry.gate import Decision, decide, decide_together
from model_registry.mlflow_client import configure
from model_registry.registry import Registry
from model_registry.serving import PERSON, TRAINING, CancelledMeanwhile, Serving
from model_registry.version import Version
from model_registry.versions import RegistryError

__all__ = [
    "PERSON",
    "TRAINING",
    "CancelledMeanwhile",
    "Champions",
    "Comparison",
    "Decision",
    "Estimate",
    "Registry",
    "RegistryError",
    "Scored",
    "Serving",
    "Version",
    "configure",
    "decide",
    "decide_together",
]
