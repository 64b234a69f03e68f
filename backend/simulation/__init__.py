"""The labelling of a project once more, to see how fast a version learns in another order."""
