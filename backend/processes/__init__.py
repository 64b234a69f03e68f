"""Processes beside the one that serves: starting, ending, and signs of life."""
