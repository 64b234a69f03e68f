"""Images of tasks: located, fetched, kept, decoded."""
