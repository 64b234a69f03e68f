"""Annotations as the files that ultralytics trains on, each on the train or the validation side."""
