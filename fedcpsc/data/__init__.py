"""Private and evaluation images: sources, partitions, pixels."""
