"""Addresses compared and shown, and which requests go through a proxy."""
