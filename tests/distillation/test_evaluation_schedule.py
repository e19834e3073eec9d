# SPDX-License-Identifier: Apache-2.0
"""When the student is measured, and that measuring leaves no trace in it."""

import pytest
import torch
from safetensors.torch import load_file
from support.fakes import FakeSilo
from support.tiny_runs import evaluation
from support.tiny_runs import tiny_config as config

from fedcpsc.data.images import ImageSet
from fedcpsc.distillation import outcome, progress
from fedcpsc.distillation.progress import rounds_between
from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.runs.read import gather


def silos():
    return [FakeSilo(f"silo-{i}") for i in range(2)]


@pytest.mark.parametrize("passes", [0, 10_000, 300_000, 1_000_000, 50_000_000])
@pytest.mark.parametrize("images", [1001, 10_000, 60_000])
@pytest.mark.parametrize("rounds", [1, 7, 20])
def test_evaluations_take_a_twentieth_of_the_work_at_most_or_are_made_after_the_last_round_alone(
    rounds, images, passes
):
    every = rounds_between(rounds, images, passes)
    evaluations = rounds // every + 1
    assert evaluations * images <= 0.05 * passes or every == rounds


def test_they_are_made_as_often_as_the_twentieth_allows():
    assert rounds_between(20, 10_000, 1_000_000) == 5  # four, and the one after the final fit
    assert rounds_between(20, 10_000, 50_000_000) == 1


def test_up_to_a_thousand_images_are_looked_at_after_every_round():
    assert rounds_between(20, 1000, 0) == 1


def larger():
    """More held-out images than a run so small looks at after every round."""
    held_out = evaluation()
    index = torch.arange(1200).numpy() % len(held_out)
    return ImageSet(held_out.images[index], held_out.labels[index], held_out.classes)


def test_the_student_does_not_depend_on_when_it_is_measured(tmp_path):
    measured = {}
    for name, every in (("always", 1), ("by itself", None), ("never before the end", 100)):
        settings = config(evaluation__every=every)
        distill(settings, LocalTransport(silos()), tmp_path / name, evaluation=larger())
        measured[name] = [line["round"] for line in gather(tmp_path / name).rounds if "student_accuracy" in line]
    rounds = config().queries.rounds
    assert measured == {
        "always": list(range(1, rounds + 1)),
        "by itself": [rounds],
        "never before the end": [],
    }
    first, *others = (load_file(tmp_path / name / "student.safetensors") for name in measured)
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    ("steps", "looks"), [(20, [True]), (0, [False])], ids=["a final fit", "a final fit of no steps"]
)
def test_the_finished_student_is_measured_once(tmp_path, monkeypatch, steps, looks):
    by_progress = []
    for module, in_progress in ((progress, True), (outcome, False)):
        monkeypatch.setattr(module, "predicted_classes", _noting(by_progress, module.predicted_classes, in_progress))
    settings = config(evaluation__every=100, student__final_steps=steps)
    result = distill(settings, LocalTransport(silos()), tmp_path, evaluation=evaluation())
    assert by_progress == looks
    told = [line["student_accuracy"] for line in gather(tmp_path).lines if "student_accuracy" in line]
    assert told == ([result["student"]["accuracy"]] if steps else [])


def _noting(seen, predict, what):
    def noted(*given):
        seen.append(what)
        return predict(*given)

    return noted


def test_a_run_may_be_resumed_with_another_schedule(tmp_path):
    distill(config(evaluation__every=1), LocalTransport(silos()), tmp_path, evaluation=evaluation())
    again = config(evaluation__every=2, evaluation__batch_size=7)
    distill(again, LocalTransport(silos()), tmp_path, evaluation=evaluation(), resume=True)
