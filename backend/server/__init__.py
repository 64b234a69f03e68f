"""The serving process put together."""
