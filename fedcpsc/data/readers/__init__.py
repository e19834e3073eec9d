# SPDX-License-Identifier: Apache-2.0
"""Sources of labelled pictures: one reader for each, none of which decodes."""
