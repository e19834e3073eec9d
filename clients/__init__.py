# SPDX-License-Identifier: Apache-2.0
"""The Flower ClientApp: a thin relay between server and gatekeeper."""
