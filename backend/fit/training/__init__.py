"""The training, in a process of its own, and what starts and watches it."""
