"""Predictions that are kept in Label Studio: renewed after a promotion, removed, or accepted in bulk."""
