# SPDX-License-Identifier: Apache-2.0
"""Which pages hold tables, and which function makes each."""

from __future__ import annotations

import re
from collections.abc import Callable

from benchmarks.tables import (
    accuracy,
    attacks,
    audits,
    choices,
    costs,
    deployments,
    dishonest,
    peers,
    resizing,
    silo_choices,
    white_box,
)

__all__ = ["PAGES", "rewrite"]

PAGES = (
    "README.md",
    "docs/answers.md",
    "docs/recipe.md",
    "docs/report.md",
    "docs/silos.md",
    "docs/pictures.md",
    "docs/public_pictures.md",
    "docs/deployment.md",
    "docs/bench.md",
    "docs/privacy.md",
    "docs/index.md",
    "docs/audit.md",
    "docs/threats.md",
    "docs/white_box.md",
    "docs/peers.md",
    "docs/what_to_expect.md",
    "docs/scale.md",
)
_TABLES: dict[str, Callable[[], list[str]]] = {
    "ablation": accuracy.ablation,
    "adjusted": accuracy.adjusted,
    "aggregation": accuracy.aggregation,
    "aggregation-rules": choices.rules,
    "compression": costs.compression,
    "crashes": deployments.crashes,
    "data-sources": choices.data_sources,
    "accuracy": accuracy.accuracy,
    "attacks": attacks.attacks,
    "audit": audits.audit,
    "audit-found": audits.found_at_one_percent,
    "audit-needed": audits.needed,
    "audit-power": audits.power,
    "audit-reach": audits.reach,
    "disjoint": accuracy.disjoint,
    "label-sets": accuracy.label_sets,
    "dishonest": dishonest.federations,
    "dishonest-attacks": dishonest.attacks,
    "dishonest-rules": dishonest.rules,
    "domains": accuracy.domains,
    "dp-sgd": accuracy.dp_sgd,
    "estimates": accuracy.estimates,
    "fits": accuracy.fits,
    "fourth-silo": deployments.fourth_silo,
    "inference-speed": costs.inference_speed,
    "mechanisms": silo_choices.mechanisms,
    "lightness": accuracy.lightness,
    "lightness-runs": accuracy.lightness_runs,
    "large-images": deployments.large_images,
    "many-silos": deployments.many_silos,
    "outliers": accuracy.outliers,
    "overheads": costs.overheads,
    "photographs": accuracy.photographs,
    "peers": peers.comparison,
    "peers-published": peers.published,
    "peers-references": peers.references,
    "peers-sanity": peers.sanity,
    "precision": accuracy.precision,
    "prior-kinds": choices.prior_kinds,
    "priors": accuracy.priors,
    "scale-constants": deployments.scale_constants,
    "scale-plan": deployments.scale_plan,
    "overlap": deployments.overlap,
    "overlap-deployed": deployments.overlap_deployed,
    "resizing": resizing.resizing,
    "shard-votes": accuracy.shard_votes,
    "socket": costs.socket,
    "teacher-formats": silo_choices.teacher_formats,
    "throughput": costs.throughput,
    "unlabelled": accuracy.unlabelled,
    "unlabelled-skewed": accuracy.unlabelled_skewed,
    "white-box-claims": white_box.claims,
    "white-box-quirks": white_box.quirks,
    "wire-bytes": costs.wire_bytes,
}


def rewrite(text: str) -> str:
    """`text` with every `<!-- table:NAME -->` ... `<!-- end -->` filled anew."""
    for name, make in _TABLES.items():
        pattern = re.compile(rf"(<!-- table:{name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = pattern.sub(lambda found, make=make: found[1] + "\n".join(make()) + "\n" + found[2], text)
    return text
