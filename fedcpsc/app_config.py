# SPDX-License-Identifier: Apache-2.0
"""What Flower's apps get to know of a run: the keys of `[tool.flwr.app.config]`, in one typed object.

Flower's `run_config` holds scalars only, so a run is named by its YAML file and its overrides, and both sides load it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedcpsc.config import RunConfig, load_config
from fedcpsc.errors import ConfigError, explain

__all__ = ["AppConfig"]

_SEPARATOR = ";"


@dataclass(frozen=True)
class AppConfig:
    """Flower's `run_config`.

    Attributes:
        config: YAML file of the run; absolute, or relative to the app's own folder.
        overrides: `a.b=c` items, separated by semicolons.
        outdir: absolute folder of the run; empty: one named after the Flower run, under the SuperLink's folder.
        resume: whether to go on from the checkpoint in `outdir`.
        silos: absolute folder of the simulated silos; empty: the config's, under the SuperLink's folder.
    """

    config: str = "configs/digits.yaml"
    overrides: str = ""
    outdir: str = ""
    resume: bool = False
    silos: str = ""

    @classmethod
    def of(cls, run_config: Mapping[str, Any]) -> AppConfig:
        """From Flower's mapping.

        Raises:
            ConfigError: for a value of another type.
        """
        known = {name: run_config[name] for name in cls.__dataclass_fields__ if name in run_config}
        for name, value in known.items():
            wanted = type(cls.__dataclass_fields__[name].default)
            if not isinstance(value, wanted):
                raise ConfigError(explain(name, value, f"must be a {wanted.__name__}", "fix --run-config"))
        return cls(**known)

    @classmethod
    def join_overrides(cls, overrides: list[str]) -> str:
        """Items of `--set` as one text.

        Raises:
            ConfigError: where an item holds the separator.
        """
        for item in overrides:
            if _SEPARATOR in item:
                raise ConfigError(
                    explain("--set", item, f"must not hold {_SEPARATOR!r}", "put the value into the YAML")
                )
        return _SEPARATOR.join(overrides)

    def to_toml(self) -> str:
        """As a file for `flwr run --run-config`; its command-line form cannot hold quotes."""
        return "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in asdict(self).items())

    def load(self, app_folder: Path) -> RunConfig:
        """The run's configuration.

        Args:
            app_folder: folder that holds `configs/`, for relative paths.

        Raises:
            ConfigError: as `load_config`.
        """
        items = [item.strip() for item in self.overrides.split(_SEPARATOR) if item.strip()]
        return load_config(app_folder / self.config, items)

    def silos_folder(self, app_folder: Path) -> Path:
        """Where the silos of a simulation lie, as an absolute path.

        Raises:
            ConfigError: as `load`.
        """
        if self.silos:
            return Path(self.silos)
        return Path(self.load(app_folder).silos.root).absolute()
