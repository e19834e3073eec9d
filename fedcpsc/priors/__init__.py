# SPDX-License-Identifier: Apache-2.0
"""Images drawn without a teacher: procedural, and crops of two public photographs."""
