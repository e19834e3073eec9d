# SPDX-License-Identifier: Apache-2.0
"""What the documentation says can be done, done; what it links to, there."""

import re

import click
import numpy as np
import pytest
import yaml
from support.documented import PAGES, ROOT, blocks, fedcpsc_calls, leaf_command

from fedcpsc.audit.plan import AuditConfig
from fedcpsc.config import RunConfig
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.gatekeeper.policy import Policy
from fedcpsc.protocol.messages import Answer, AnswerForm, Query
from fedcpsc.sweep.plan import SweepPlan
from fedcpsc.training.plan import training_plan
from fedcpsc.typed_yaml import parse_overrides, validate
from website.reference import pages as reference_pages

CALLS = [call for page in PAGES for call in fedcpsc_calls(page)]
REFERENCE = reference_pages()
YAMLS = [block for page in PAGES for block in blocks(page, "yaml")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        generated = target in REFERENCE
        assert generated or (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_every_command_parses(call):
    command, arguments = leaf_command(call.words)
    try:
        command.make_context(command.name, arguments)
    except click.MissingParameter:
        assert call.inline, f"{call}: {call.words}"  # in prose a command may be named without what it needs


@pytest.mark.parametrize("call", [call for call in CALLS if "--set" in call.words], ids=str)
def test_every_override_is_a_valid_value(call):
    given = [value for flag, value in zip(call.words, call.words[1:], strict=False) if flag == "--set"]
    tree = {}
    for key, value in parse_overrides(given).items():
        *sections, name = key.split(".")
        part = tree
        for section in sections:
            part = part.setdefault(section, {})
        part[name] = value
    validate(AuditConfig if "audit" in call.words else RunConfig, tree, str(call))


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_every_configuration_of_a_command_is_there(call):
    shown = {block.text.split(maxsplit=2)[1] for block in YAMLS if block.text.startswith("# ")}
    shown |= {word for other in CALLS if other.words[0] == "init" for word in other.words}  # which writes them
    for word in call.words:
        if word.endswith(".yaml") and not call.inline:
            assert word in shown or (ROOT / word.removeprefix("fedcpsc/")).exists(), f"{call}: {word}"


@pytest.mark.parametrize("block", YAMLS, ids=str)
def test_every_yaml_is_valid(block):
    tree = yaml.safe_load(block.text)
    kinds = (Policy, RunConfig, AuditConfig, SweepPlan)
    model = next((kind for kind in kinds if set(tree) <= set(kind.model_fields)), None)
    assert model is not None, f"{block}: neither a policy, a run, an audit nor a sweep has the keys {sorted(tree)}"
    made = validate(model, tree, str(block))
    if isinstance(made, RunConfig):
        training_plan(made.teachers)
        validate(Policy, made.silos.policy, str(block))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_is_there(page):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`make ([a-z-]+)", text) + re.findall(r"^make ([a-z-]+)", text, re.MULTILINE)
    assert set(named) <= set(targets)


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

    recipe, *_ = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "silos.md").read_text(encoding="utf-8"), re.DOTALL)
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
    from benchmarks.tables.pages import PAGES, rewrite

    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert rewrite(text) == text, f"{page}: run python -m benchmarks.tables"
