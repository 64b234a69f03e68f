"""The `yoloop` command."""
