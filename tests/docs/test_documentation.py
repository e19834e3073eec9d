"""What the documentation says can be done, done; what it links to, there."""

import re
from pathlib import Path

import numpy as np
import pytest

from fedcpsc.gatekeeper.gatekeeper import open_gatekeeper
from fedcpsc.protocol.messages import Answer, AnswerForm, Query

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_recipe_for_a_finished_teacher_makes_a_silo_that_answers(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    import onnx
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
    ]
    w = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        [helper.make_tensor("w", TensorProto.FLOAT, w.shape, w.tobytes(), raw=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    monkeypatch.chdir(tmp_path)
    onnx.save(model, "model.onnx")

    (recipe,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "silos.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(recipe, {})

    gatekeeper = open_gatekeeper(tmp_path / "silos" / "mine")
    images = np.random.default_rng(1).integers(0, 256, (5, 1, 8, 8)).astype(np.uint8)
    answer = gatekeeper.answer(Query("0" * 32, AnswerForm.PROBABILITIES, images))
    gatekeeper.close()
    assert isinstance(answer, Answer)
    expected = ((images.reshape(5, 64) / 255 - 0.5) / 0.5) @ w
    assert answer.values.argmax(1).tolist() == expected.argmax(1).tolist()
    assert answer.answers_left == 20_000 - 5


def test_every_table_is_the_measured_one():
    from benchmarks.tables import PAGES, rewrite

    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert rewrite(text) == text, f"{page}: run python -m benchmarks.tables"
