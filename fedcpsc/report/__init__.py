# SPDX-License-Identifier: Apache-2.0
"""One run as one self-contained page."""
