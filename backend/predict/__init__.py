"""One prediction request: images to detections, detections to regions, and a score for each task."""
