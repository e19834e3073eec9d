# SPDX-License-Identifier: Apache-2.0
"""numpy, imported at the first use of it: `from fedcpsc.late_numpy import np, npt`, in place of the usual two lines.

For modules that `fedcpsc status` imports, and that need numpy only once they open images or answers. It is what
`lazy import numpy as np` will be in Python 3.15 (PEP 810); a module-level `np.float32(1)` would import it at once.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ["np", "npt"]

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:

    class _Late(ModuleType):
        """Stands for a module until it is used; each name is looked up once."""

        def __getattr__(self, name: str) -> Any:
            found = getattr(import_module(self.__name__), name)
            setattr(self, name, found)
            return found

    np, npt = _Late("numpy"), _Late("numpy.typing")
