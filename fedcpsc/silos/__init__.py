# SPDX-License-Identifier: Apache-2.0
"""A silo's folder, of a simulation or of a real owner: made, taken up with its adopted teacher, or made again."""
