# SPDX-License-Identifier: Apache-2.0
"""Silos whose owners bring a finished ONNX model, as docs/silos.md says."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcpsc.gatekeeper.opening import begin_ledger
from fedcpsc.gatekeeper.policy import POLICY_FILE, Policy, save_policy
from fedcpsc.teachers.manifest import WEIGHTS_FILE, Manifest, Normalisation, save_manifest, sha256_hex

SHAPE = (1, 8, 8)


def onnx_model(
    classes: int = 10, shape: tuple[int, int, int] = SHAPE, external: str | None = None, last: str | None = None
) -> bytes:
    """A linear classifier; with `external`, its weights are said to lie in a file of that name.

    `last` is an operator that is applied to its logits.
    """
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    weight = np.random.default_rng(1).normal(size=(int(np.prod(shape)), classes)).astype(np.float32)
    tensor = onnx.numpy_helper.from_array(weight, "w")
    if external is not None:
        onnx.external_data_helper.set_external_data(tensor, external)
        tensor.ClearField("raw_data")
    make, proto = onnx.helper.make_node, onnx.TensorProto
    end = [] if last is None else [make(last, ["products"], ["logits"])]
    graph = onnx.helper.make_graph(
        [make("Flatten", ["x"], ["flat"]), make("MatMul", ["flat", "w"], ["products" if last else "logits"]), *end],
        "linear",
        [onnx.helper.make_tensor_value_info("x", proto.FLOAT, ["n", *shape])],
        [onnx.helper.make_tensor_value_info("logits", proto.FLOAT, ["n", classes])],
        [tensor],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    data: bytes = model.SerializeToString()
    return data


def adopt(folder: Path, weights: bytes | None = None, **facts: Any) -> Path:
    """Writes the silo's folder; `facts` replace those of the manifest."""
    weights = onnx_model() if weights is None else weights
    classes = facts.get("classes", 10)
    manifest = {
        "silo": "clinic-north",
        "kind": "onnx",
        "architecture": "onnx",
        "width": 1,
        "classes": classes,
        "image_shape": SHAPE,
        "normalisation": Normalisation(mean=(0.5,), std=(0.5,)),
        "train_size": 120 * classes,
        "training": {"kind": "plain", "by": "our own pipeline"},
        "weights_sha256": sha256_hex(weights),
        "fingerprint": sha256_hex(weights),
        "private_class_counts": (120,) * classes,
    }
    folder.mkdir(parents=True)
    (folder / WEIGHTS_FILE).write_bytes(weights)
    save_manifest(Manifest.model_validate(manifest | facts), folder)
    save_policy(Policy(answers=500), folder / POLICY_FILE)
    begin_ledger(folder).close()
    return folder


def fingerprints(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a silo but its ledger and its mark."""
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(("ledger.sqlite", "ledger.mark"))
    }
