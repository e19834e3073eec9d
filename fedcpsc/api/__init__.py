# SPDX-License-Identifier: Apache-2.0
"""The Python API: models and arrays in, runs out.

Its names are those of `fedcpsc` itself: `import fedcpsc`, then `fedcpsc.simulate(...)` and `fedcpsc.distill(...)`. They
are imported when they are first used. The command line calls the same functions below this package.
"""

import logging

logging.getLogger("fedcpsc").addHandler(logging.NullHandler())  # what is logged is shown where the program says so
