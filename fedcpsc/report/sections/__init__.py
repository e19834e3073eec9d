"""The sections of the page, by subject."""
