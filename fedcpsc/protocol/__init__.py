"""What crosses the wire between server and silo, and nothing else."""
