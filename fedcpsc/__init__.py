# SPDX-License-Identifier: Apache-2.0
"""fedcpsc: federated, data-free distillation from teachers that only answer.

    federation = fedcpsc.simulate([model_a, model_b, model_c], classes=names, image_shape=(3, 32, 32), ...)
    run = fedcpsc.distill(federation, answers=5000)
    run.student, run.bank, run.result, run.curve

Importing this package imports nothing else: each name below is looked up when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fedcpsc.api.audit import Audit, audit
    from fedcpsc.api.bank import RunBank
    from fedcpsc.api.callbacks import Callback, ProgressLine, RunStart
    from fedcpsc.api.curve import Curve, CurvePoint
    from fedcpsc.api.distill import distill
    from fedcpsc.api.federation import Federation, simulate
    from fedcpsc.api.loggers import MlflowLogger, TensorBoardLogger, WandbLogger
    from fedcpsc.api.members import SiloStatus
    from fedcpsc.api.refit import refit
    from fedcpsc.api.result import Result
    from fedcpsc.api.run import Run, open_run
    from fedcpsc.errors import FedcpscError
    from fedcpsc.gatekeeper.policy import Policy

    __version__: str

__all__ = [
    "Audit",
    "Callback",
    "Curve",
    "CurvePoint",
    "FedcpscError",
    "Federation",
    "MlflowLogger",
    "Policy",
    "ProgressLine",
    "Result",
    "Run",
    "RunBank",
    "RunStart",
    "SiloStatus",
    "TensorBoardLogger",
    "WandbLogger",
    "__version__",
    "audit",
    "distill",
    "open_run",
    "refit",
    "simulate",
]

_PLACES: Final = {
    "Audit": "api.audit",
    "Callback": "api.callbacks",
    "Curve": "api.curve",
    "CurvePoint": "api.curve",
    "FedcpscError": "errors",
    "Federation": "api.federation",
    "MlflowLogger": "api.loggers",
    "Policy": "gatekeeper.policy",
    "ProgressLine": "api.callbacks",
    "Result": "api.result",
    "Run": "api.run",
    "RunBank": "api.bank",
    "RunStart": "api.callbacks",
    "SiloStatus": "api.members",
    "TensorBoardLogger": "api.loggers",
    "WandbLogger": "api.loggers",
    "distill": "api.distill",
    "open_run": "api.run",
    "refit": "api.refit",
    "simulate": "api.federation",
}

if not TYPE_CHECKING:  # a type checker knows the names above, and no others

    def __getattr__(name):
        if name == "__version__":  # read when asked for: most processes never do
            from fedcpsc.version import version  # noqa: PLC0415

            return version()
        if name == "audit":  # the package, which can be called: it may have been imported before
            return import_module("fedcpsc.audit")
        if name in _PLACES:
            found = globals()[name] = getattr(import_module(f"fedcpsc.{_PLACES[name]}"), name)
            return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__all__})
