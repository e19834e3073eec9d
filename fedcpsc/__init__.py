# SPDX-License-Identifier: Apache-2.0
"""fedcpsc: federated, data-free distillation from teachers that only answer."""


def __getattr__(name: str) -> str:
    if name == "__version__":  # read when asked for: most processes never do
        from fedcpsc.version import version  # noqa: PLC0415

        return version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
