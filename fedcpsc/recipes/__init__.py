# SPDX-License-Identifier: Apache-2.0
"""Images from recipes: the same code, and so the same images, at the server and at a silo."""
