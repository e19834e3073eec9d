# SPDX-License-Identifier: Apache-2.0
"""Audits: what an attack proves to have leaked, compared with what was claimed.

`fedcpsc.audit(run, ...)` of the Python API has this package's name; whichever of the two a program meets first, it can
be called (`fedcpsc.api.audit.audit`).
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    def __call__(self, *args: Any, **keywords: Any) -> Any:
        return import_module("fedcpsc.api.audit").audit(*args, **keywords)


sys.modules[__name__].__class__ = _CallablePackage
