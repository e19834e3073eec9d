"""The Flower ClientApp: a thin relay between server and gatekeeper."""
