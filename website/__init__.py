# SPDX-License-Identifier: Apache-2.0
"""Builds the documentation site: what mkdocs needs beyond the pages in `docs/`."""
