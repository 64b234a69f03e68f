"""yoloop's own endpoints, apart from those that Label Studio calls."""
