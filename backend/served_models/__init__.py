"""Which models answer for a project, in memory or on their way there."""
