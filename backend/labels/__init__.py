"""Label Studio's label config and regions, to YOLO's classes and detections and back. Pure functions."""
