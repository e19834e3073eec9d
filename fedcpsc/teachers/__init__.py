# SPDX-License-Identifier: Apache-2.0
"""A silo's teacher as files: its manifest, its proof, and one file for each format that can be opened."""
