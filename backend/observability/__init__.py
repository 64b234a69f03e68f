"""Logs, what is masked in them, and metrics."""
