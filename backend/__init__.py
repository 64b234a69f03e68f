"""yoloop: a Label Studio ML backend that suggests ranked YOLO boxes and learns from every submit."""

__version__ = "0.9.0"
