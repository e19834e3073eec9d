# SPDX-License-Identifier: Apache-2.0
"""`config.json` beside the model, as tools of Hugging Face's hub read it: which logit is which class."""

from __future__ import annotations

import json
from pathlib import Path

from fedcpsc.errors import RunError, explain
from fedcpsc.models.student_file import INPUT_SCALE
from fedcpsc.runs.student import Student

__all__ = ["CONFIG_FILE", "check_config_is_ours", "hub_config"]

CONFIG_FILE = "config.json"
_MARK = "fedcpsc"


def hub_config(student: Student) -> str:
    """The file's text. Classes without names are called `LABEL_0` and so on, as the hub's tools call them."""
    names = student.class_names or tuple(f"LABEL_{k}" for k in range(student.classes))
    channels, height, width = student.image_shape
    own: dict[str, object] = {} if student.width is None else {"width": student.width}
    if (constants := student.plan.normalisation) is not None:
        own["normalisation"] = constants.model_dump(mode="json")  # what the network does to its input first
    content = {
        "architecture": student.architecture,
        "num_labels": student.classes,
        "id2label": {str(k): name for k, name in enumerate(names)},
        "label2id": {name: k for k, name in enumerate(names)},
        "num_channels": channels,
        "image_size": [height, width],
        _MARK: {**own, "input": INPUT_SCALE, "named": student.class_names is not None},
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def check_config_is_ours(folder: Path) -> None:
    """Does nothing where the folder has no `config.json`, or one of an earlier export.

    Raises:
        RunError: another tool's lies there; it is not overwritten.
    """
    path = folder / CONFIG_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        ours = isinstance(found, dict) and _MARK in found
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        ours = False
    if not ours:
        raise RunError(explain("--out", str(folder), f"its {CONFIG_FILE} is not of an export", "choose another folder"))
