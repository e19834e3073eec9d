# SPDX-License-Identifier: Apache-2.0
"""What silos that lie do to targets and students, under each rule, judged and not judged by their answers."""
