"""Builds the documentation site: what mkdocs needs beyond the pages in `docs/`."""
