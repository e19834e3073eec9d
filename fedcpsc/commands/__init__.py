# SPDX-License-Identifier: Apache-2.0
"""The bodies of the command line: what each command does, shows and exits with."""
