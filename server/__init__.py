"""The Flower ServerApp: configuration to run."""
