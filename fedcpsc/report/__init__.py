"""One run as one self-contained page."""
