# SPDX-License-Identifier: Apache-2.0
"""Published methods, written anew from their papers, on the silos that fedcpsc asks: as many calls, one student."""
