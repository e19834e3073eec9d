# SPDX-License-Identifier: Apache-2.0
"""What aggregation makes of the same images: rules, noise, answer forms and class counts side by side.

    python -m benchmarks.aggregation benchmarks/plans/aggregation.yaml --out ablation_aggregation.json

Each setting of a plan is `{about, name, config, set, policies, rule, denoise, inform, count_sigma, seeds}`: silos are
trained as `fedcpsc teachers` would, the plan's `images` of the procedural prior are answered through each silo's window
(`policies` gives form and sigma, dealt round-robin; noise here is seeded, and no budget is charged), and one student is
fitted to the targets. No generator, no rounds: what differs between two settings of a seed is aggregation alone. Silos
are not judged (`benchmarks.dishonest` does that), and keep `data.validation` images for measuring; the test split is
never read.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.record import merge, provenance
from fedcpsc.aggregation.rule import RULES
from fedcpsc.config import AggregationConfig, RunConfig, load_config
from fedcpsc.data.images import ImageSet
from fedcpsc.data.sources import load_evaluation
from fedcpsc.distillation.aggregation import aggregate
from fedcpsc.distillation.evaluate import accuracy, predicted_classes
from fedcpsc.distillation.information import Window
from fedcpsc.distillation.steps import BankReader, fit, make_committee
from fedcpsc.distillation.targets import TargetKeeper
from fedcpsc.priors.mixture import sample_prior
from fedcpsc.priors.tones import Tones
from fedcpsc.protocol.messages import AnswerForm
from fedcpsc.runs.answer_bank import AnswerBank
from fedcpsc.seeding import derive_seed, numpy_generator
from fedcpsc.silos.make import make_silos
from fedcpsc.sweep.made_silos import silos_key
from fedcpsc.teachers.manifest import Manifest, load_manifest
from fedcpsc.teachers.opening import open_teacher
from fedcpsc.teachers.protocol import Teacher
from fedcpsc.typed_yaml import read_yaml

TOP_K = 3  # of silos that show so many classes


class Asked(NamedTuple):
    """Silos that were trained, and images of the prior to ask them about.

    Attributes:
        evaluation: validation images that the silos kept for measuring.
        manifests: silos' manifests.
        teachers: silos' teachers.
        images: prior images, uint8 [N, C, H, W].
    """

    evaluation: ImageSet
    manifests: list[Manifest]
    teachers: list[Teacher]
    images: npt.NDArray[np.uint8]


def ask_silos(config: RunConfig, images: int, silos_root: Path) -> Asked:
    """Trains the silos of a configuration, where `silos_root` does not hold them, and draws images to ask about."""
    folder = silos_root / silos_key(config)
    make_silos(config, folder)
    evaluation = load_evaluation(config.data, config.seed)
    assert evaluation is not None
    assert config.data.validation
    manifests = [load_manifest(folder / str(s)) for s in range(config.silos.count)]
    teachers = [open_teacher(folder / str(s), manifest) for s, manifest in enumerate(manifests)]
    stream = torch.Generator().manual_seed(derive_seed(config.seed, "benchmark images"))
    moments, shape = config.synthesis.moments, manifests[0].image_shape
    drawn = sample_prior(config.synthesis.prior, images, shape, stream, Tones(moments[0]) if moments else None)
    queries = ((drawn + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
    return Asked(evaluation, manifests, teachers, queries)


def run_one(setting: dict[str, Any], seed: int, images: int, silos_root: Path) -> dict[str, float]:
    """Accuracy of student and ensemble on the validation images."""
    config = load_config(setting["config"], [*setting.get("set", []), f"seed={seed}"])
    evaluation, manifests, teachers, queries = ask_silos(config, images, silos_root)
    shape = manifests[0].image_shape

    policies = setting.get("policies", [{}])
    rule = AggregationConfig(rule=setting["rule"], denoise=setting.get("denoise", True), robust=False)
    names = [manifest.silo for manifest in manifests]
    windows = {
        name: Window(AnswerForm(p.get("form", "probabilities")), p.get("sigma", 0.0), rule.denoise)
        for name, p in ((name, policies[s % len(policies)]) for s, name in enumerate(names))
    }
    counts = np.array([manifest.private_class_counts for manifest in manifests], np.float32)
    rng = numpy_generator(seed, "benchmark noise")
    if sigma := setting.get("count_sigma"):
        counts = np.maximum(counts + np.rint(rng.normal(0, sigma, counts.shape)), 0).astype(np.float32)
    with tempfile.TemporaryDirectory() as scratch:
        bank = AnswerBank(Path(scratch), shape, manifests[0].classes, names)
        batch = bank.add_batch(0, queries, np.full(images, -1))
        for name, teacher in zip(names, teachers, strict=True):
            bank.add_answers(batch.query_id, name, windows[name].look(teacher.predict(queries), TOP_K, rng))
        keeper = TargetKeeper(bank, rule, counts, windows if setting.get("inform", True) else None)
        keeper.refresh()
        device = torch.device("cpu")
        student = make_committee(config.student, bank.classes, shape, seed, device)[0]
        pool, none = bank.answered_rows(), np.zeros(0, np.int64)
        steps = config.final_steps
        fit(
            student, config.student, BankReader(bank, device), pool, none, steps, derive_seed(seed, "benchmark fit"),
            cosine_from=(0, steps),
        )  # fmt: skip
        own = np.stack([teacher.predict(evaluation.images) for teacher in teachers])
        together = aggregate(own, np.ones(own.shape[:2], bool), RULES.get(rule.rule), counts=keeper.counts)
    reached = accuracy(predicted_classes(student.network, evaluation, 500), evaluation)
    return {"student": reached, "ensemble": float((together.argmax(1) == evaluation.labels).mean())}


def summary(setting: dict[str, Any], results: list[dict[str, float]], images: int) -> dict[str, Any]:
    """One row: means and standard deviations over the setting's seeds."""
    each = {key: [100 * result[key] for result in results] for key in ("student", "ensemble")}
    row: dict[str, Any] = {"setting": setting["name"], "about": setting["about"], "images": images}
    for key, values in each.items():
        row[key] = round(statistics.mean(values), 2)
        row[f"{key}_std"] = round(statistics.stdev(values), 2)
        row[f"{key}_each"] = [round(value, 2) for value in values]
    return {**row, "split": "validation", "seeds": setting["seeds"], "plan": setting, **provenance()}


def main() -> int:
    """Runs a plan and merges its rows into one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", help="YAML: images, and a list of settings")
    parser.add_argument("--out", default="ablation_aggregation.json")
    parser.add_argument("--silos", default="", help="folder in which teachers are kept for the next call")
    parser.add_argument("--only", default="", help="run only settings whose subject contains this")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    plan = read_yaml(arguments.plan)
    silos = Path(arguments.silos or tempfile.mkdtemp(prefix="fedcpsc-silos-"))
    silos.mkdir(parents=True, exist_ok=True)
    for setting in plan["settings"]:
        if arguments.only not in setting["about"]:
            continue
        results = [run_one(setting, seed, plan["images"], silos) for seed in setting["seeds"]]
        row = summary(setting, results, plan["images"])
        merge(Path(arguments.out), [row])
        print(
            f"{row['setting']:<44} student {row['student']:.1f} +- {row['student_std']:.1f} {row['student_each']} "
            f"ensemble {row['ensemble']:.1f} {row['ensemble_each']}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
