# SPDX-License-Identifier: Apache-2.0
"""How fast a run's parts are, how much memory they take, and what each answer buys; two sides by turns."""
