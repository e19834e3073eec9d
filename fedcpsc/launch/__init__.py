# SPDX-License-Identifier: Apache-2.0
"""Starting a run on this machine, following it, and showing it."""
