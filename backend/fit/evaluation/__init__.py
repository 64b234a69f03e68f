"""What a version scores on held-out images, and whether one is better than another."""
