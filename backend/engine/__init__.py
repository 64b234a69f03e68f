"""YOLO networks on a device: images in, detections out."""
