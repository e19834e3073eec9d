# SPDX-License-Identifier: Apache-2.0
"""How a server can know whose an image is where silos share no class: outliers in training, or answers alone.

    python -m benchmarks.disjoint --data ../data --out benchmarks/results/disjoint.json

Two silos of `configs/disjoint.yaml` (vehicles, animals) are trained in several ways, and their answers to validation
images are pooled with several weights; the test split is never read. No student is fitted: the ensemble is what one
could hope for. Each row says how often the pooled answer is right, how often the silo that counts most is the one that
knows the image's class, and what the same teachers would reach if that were always known ("oracle").
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.record import provenance
from fedcpsc.config import RunConfig, load_config
from fedcpsc.data.images import ImageSet, to_pixels, to_uint8
from fedcpsc.data.silo_images import iterate_silo_images
from fedcpsc.data.sources import load_evaluation
from fedcpsc.label_sets import LabelSets
from fedcpsc.models.registry import Classifier
from fedcpsc.priors.mixture import sample_prior
from fedcpsc.priors.tones import Tones
from fedcpsc.seeding import derive_seed
from fedcpsc.training.outliers import make_outliers
from fedcpsc.training.plain import train_classifier

Floats = npt.NDArray[np.float32]

# a smaller CIFAR-10 and fewer passes than the configuration's: what differs between two rows is what matters
_SET = ["data.validation=5000", "data.train_limit=15000"]
_TRAININGS: dict[str, list[str]] = {
    "own classes alone": ["teachers.outliers=null"],
    "none of mine": [],
    "none of mine, none: 1": ["teachers.outliers.none=1"],
    "none of mine, none: 0.8": ["teachers.outliers.none=0.8"],
    "none of mine, photographs alone": ["teachers.outliers.photographs=1"],
    "none of mine, priors alone": ["teachers.outliers.photographs=0"],
    "none of mine, weight: 0.5": ["teachers.outliers.weight=0.5"],
}


def logits(network: Classifier, images: npt.NDArray[np.uint8]) -> Tensor:
    """[N, outputs] of images uint8 [N, C, H, W]."""
    with torch.inference_mode():
        parts = [network(to_pixels(part)) for part in torch.split(torch.from_numpy(images), 500)]
    return torch.cat(parts)


def rank(value: Floats, among: Floats) -> Floats:
    """Share of `among` that is below each value, in (0, 1)."""
    found: Floats = ((np.searchsorted(np.sort(among), value) + 0.5) / (len(among) + 1)).astype(np.float32)
    return found


def weights_of_answers(raw: Sequence[Tensor], on_priors: Sequence[Tensor]) -> dict[str, Floats]:
    """Weights [S, N] that need no training, by name, of silos without an output for none."""
    answers = [each.softmax(1).numpy() for each in raw]
    sure, prior = [p.max(1) for p in answers], [each.softmax(1).max(1).values.numpy() for each in on_priors]
    entropy = [-(p * np.log(p + 1e-12)).sum(1) for p in answers]
    return {
        "equal": np.ones((len(raw), len(sure[0])), np.float32),
        "confidence exp(-H) (rule entropy)": np.exp(-np.stack(entropy)),
        "odds of the most probable class": np.stack([p / np.maximum(1 - p, 1 / 510) for p in sure]),
        "rank of the confidence among answers to priors": np.stack(
            [rank(own, other) ** 4 for own, other in zip(sure, prior, strict=True)]
        ),
        "energy of the logits, which no answer holds": np.exp(np.stack([e.logsumexp(1).numpy() for e in raw])),
    }


def judged(shares: Floats, weight: Floats, evaluation: ImageSet, knows: npt.NDArray[np.int64]) -> dict[str, float]:
    """Accuracies in percent.

    Args:
        shares: each silo's probabilities of the classes, [S, N, K], rows sum to 1.
        weight: how much each silo counts for each image, [S, N].
        evaluation: validation images.
        knows: number of the silo that knows the class of each image, [N].
    """
    pooled = (shares * weight[:, :, None]).sum(0).argmax(1)
    told = shares[knows, np.arange(len(knows))].argmax(1)
    right = {
        "ensemble": pooled == evaluation.labels,
        "right_silo": weight.argmax(0) == knows,
        "oracle": told == evaluation.labels,
    }
    return {name: round(100 * float(each.mean()), 2) for name, each in right.items()}


def measure(config: RunConfig, evaluation: ImageSet, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """Rows of one training and seed: one, or one for each weight that needs no training."""
    networks, places, knows = [], [], np.zeros(len(evaluation), np.int64)
    for silo, images in enumerate(iterate_silo_images(config)):
        seed = derive_seed(config.seed, "teacher", silo)
        outliers = make_outliers(config.teachers, images.image_shape, seed)
        networks.append(train_classifier(images, config.teachers, seed, "convnet", tell, outliers=outliers))
        places.append(tuple((evaluation.class_names or ()).index(name) for name in images.class_names or ()))
        knows[np.isin(evaluation.labels, places[silo])] = silo
    moments, shape = config.synthesis.moments, evaluation.image_shape
    stream = torch.Generator().manual_seed(derive_seed(config.seed, "benchmark images"))
    drawn = sample_prior(config.synthesis.prior, 2000, shape, stream, Tones(moments[0]) if moments else None)
    priors = [logits(network, to_uint8(drawn).numpy()) for network in networks]
    raw, none = [logits(network, evaluation.images) for network in networks], config.teachers.outliers is not None
    sets = LabelSets(evaluation.classes, evaluation.class_names, tuple(places), (none,) * len(raw))
    said = [sets.federated(silo, each.softmax(1).numpy()) for silo, each in enumerate(raw)]
    shares, weight = np.stack([own for own, _ in said]), sets.weights(np.stack([mass for _, mass in said]))
    if weight is None:
        every = weights_of_answers(raw, priors)
        return [{"weights": name, **judged(shares, own, evaluation, knows)} for name, own in every.items()]
    odds = weight.astype(np.float64) ** 2
    saturated = float(np.mean([np.median(each.softmax(1)[:, -1]) for each in priors]))
    trained = {"root of the odds against none": weight, "odds against none": odds}
    return [
        {"weights": name, **judged(shares, own, evaluation, knows), "none_of_priors": round(saturated, 4)}
        for name, own in trained.items()
    ]


def main() -> int:
    """Measures, and writes one JSON file of means over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/disjoint.yaml")
    parser.add_argument("--data", required=True, help="folder of the data sets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", default="disjoint.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for training, changes in _TRAININGS.items():
        for seed in given.seeds:
            config = load_config(given.config, [f"data.path={given.data}/cifar10", *_SET, *changes, f"seed={seed}"])
            evaluation = load_evaluation(config.data, seed)
            assert evaluation is not None
            for row in measure(config, evaluation, lambda line: None):
                print(training, seed, row, flush=True)
                found.setdefault((training, row["weights"]), []).append(row)
        rows = [{"teachers": teachers, "weights": how, **means(each)} for (teachers, how), each in found.items()]
        whole = {"config": given.config, "set": _SET, "seeds": given.seeds, "split": "validation", "rows": rows}
        Path(given.out).write_text(json.dumps({**whole, **provenance()}, indent=1) + "\n", encoding="utf-8")
    return 0


def means(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation of each figure."""
    figures = [name for name, value in rows[0].items() if isinstance(value, float)]
    spread = {f"{name}_std": round(statistics.stdev(row[name] for row in rows), 2) for name in figures if len(rows) > 1}
    return {name: round(statistics.mean(row[name] for row in rows), 2) for name in figures} | spread


if __name__ == "__main__":
    sys.exit(main())
