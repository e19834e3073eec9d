# SPDX-License-Identifier: Apache-2.0
"""Makes the silos of a run, as each organisation would make its own before a federation starts.

    <base>/<i>/teacher.safetensors  manifest.json  policy.yaml  ledger.sqlite
               canaries.json, where the training has canaries;  past/, the teachers that were replaced

A silo whose teacher this project trained is made again when its data or its configuration changed; one whose teacher
was adopted is used as it is. A folder holds the silo of one population: its ledger and its budget stay the same
whatever is trained there, and are never begun again. Two errors are raised before the training: records that another
population used, and a training that would exceed the policy's epsilon.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from fedcpsc.config import RunConfig
from fedcpsc.data.images import ImageSet
from fedcpsc.data.reading import ReadingReport
from fedcpsc.data.silo_images import parts_of_silos
from fedcpsc.data.sources import evaluation_images
from fedcpsc.errors import ConfigError, ManifestError, RunError, explain
from fedcpsc.freed_memory import keep_freed_memory
from fedcpsc.gatekeeper.policy import Policy
from fedcpsc.label_sets import SiloClasses
from fedcpsc.models.device import choose_device, torch_threads
from fedcpsc.models.pretrained import Pretrained
from fedcpsc.silos.adopted import adopted_silos, check_classes, check_fit, check_names, classes_of, use_adopted
from fedcpsc.silos.folder import PAST, standing_teacher
from fedcpsc.silos.held_out import check_held_out, write_held_out
from fedcpsc.silos.maker import SiloMaker
from fedcpsc.silos.report import SiloReport
from fedcpsc.strict_json import parse_mapping
from fedcpsc.teachers.manifest import MANIFEST_FILE, Manifest
from fedcpsc.training.network import check_architectures, check_begins, public_weights
from fedcpsc.training.plain import Progress
from fedcpsc.training.plan import training_plan
from fedcpsc.typed_yaml import validate

__all__ = ["SiloReport", "check_same_weights", "configured_silos", "make_silos"]

_SIMULATED = {"share_answers": True}
"""What policies of silos that are all made here say, where the configuration does not: they are one user's own."""

_NAMED = 10  # silos that are named one by one


def make_silos(
    config: RunConfig,
    base: Path,
    progress: Progress | None = None,
    only: int | None = None,
    on_reading: Callable[[ReadingReport], None] | None = None,
    tell: Progress | None = None,
    on_shape: Callable[[int, tuple[int, int, int]], None] | None = None,
) -> list[SiloReport]:
    """Makes `<base>/0`, `<base>/1`, ..., using what was adopted and reusing every teacher that matches.

    Adopted silos are looked at first: whether they fit the run is known before anything is trained. No private data is
    read for them.

    Args:
        config: configuration of the run.
        base: folder of the silos' folders.
        progress: function that is called with what is being done, a line each time.
        only: number of the one silo to make, as its owner does on a machine of its own: its answers are handed on only
            where `silos.policy` says so; None makes all, for a simulation.
        on_reading: function that is called with the report on each reading of pictures, before anything is trained on
            them.
        tell: function that is called with what teachers start from, a line for each network, with the number of
            held-out images that a silo trains on, and with silos in the folder that take no part; None calls
            `progress`.
        on_shape: function that is called with the first silo's number of classes and the shape (C, H, W) of its images,
            before anything is trained; what it raises is raised here.

    Raises:
        ConfigError: for an unknown architecture, one that cannot be trained on such images, or an unknown kind of
            training or policy field.
        DataError: where the private or held-out images cannot be read or dealt as configured.
        FederationError: where an adopted silo does not fit the run.
        LedgerError: where a silo's ledger is missing, damaged, or of another population or unit.
        ManifestError: where a folder holds a teacher that is damaged or must be migrated: it is not overwritten.
        PolicyError: where an owner's own `policy.yaml` cannot be honoured, or a training would pass its epsilon.
        SiloError: where a silo's folder cannot be read or written.
    """
    keep_freed_memory()
    architectures, policies = configured_silos(config, {} if only is not None else _SIMULATED)
    device = choose_device(config.runtime.device)
    silos = range(config.silos.count) if only is None else (only,)
    adopted = adopted_silos(base, silos)
    evaluation = evaluation_images(config)
    _check_adopted(adopted, evaluation)
    weights = public_weights(config.teachers) if len(adopted) < len(silos) else None
    if weights is not None:
        _check_public(weights, base)
    makers = {silo: SiloMaker(config, silo, base / str(silo), device, weights) for silo in silos if silo not in adopted}
    names_of = {silo: manifest.silo for silo, manifest in adopted.items()}
    check_names(names_of | {silo: maker.name for silo, maker in makers.items()})
    said, aliases = {manifest.silo: classes_of(manifest) for manifest in adopted.values()}, config.aggregation.aliases
    check_classes(said, evaluation, aliases)
    report, shown = progress or _silent, _Readings(on_reading)
    if only is None and (beyond := _beyond(base, config.silos.count)):
        (tell or report)(beyond)
    used = [architectures[silo % len(architectures)] for silo in makers]
    starts: set[str | None] = set()  # in words, each of which is told once
    measured_on = [] if evaluation is None else evaluation.digests()
    shown.add(evaluation)
    with torch_threads(config.runtime.threads):
        reports = {
            silo: use_adopted(base / str(silo), manifest, evaluation, aliases) for silo, manifest in adopted.items()
        }
        for silo, images, held_out in parts_of_silos(config, list(makers)) if makers else ():
            check_held_out(config.silos.held_out, images.image_shape, held_out, makers[silo].name)
            its = SiloClasses(images.classes, images.class_names, config.teachers.outliers is not None)
            check_fit(adopted, its, images.image_shape, f"{makers[silo].name}'s images")
            said[makers[silo].name] = its
            check_classes(said, evaluation, aliases)
            shown.add(images)
            if equal := _in_common(measured_on, images):
                (tell or report)(_seen_before(equal, len(measured_on), makers[silo].name))
            architecture, policy = architectures[silo % len(architectures)], policies[silo % len(policies)]
            outputs = images.classes + its.none_class
            if on_shape is not None and not starts:
                on_shape(images.classes, images.image_shape)
            for name in [architecture] if starts else used:  # the first time all, before anything is trained
                start = check_begins(config.teachers, name, outputs, images.image_shape, weights)
                if start is not None and start not in starts:
                    (tell or report)(start)
                starts.add(start)
            reports[silo] = makers[silo].make(images, architecture, policy, evaluation, report)
            if held_out is not None:
                write_held_out(base / str(silo), held_out)
    return [reports[silo] for silo in silos]


def check_same_weights(config: RunConfig, base: Path) -> None:
    """Does nothing where the silos' teachers started from the weights that the configuration names.

    Args:
        config: configuration of a run that is gone on with.
        base: folder of the silos' folders.

    Raises:
        ConfigError: the weights cannot be read.
        ManifestError, SiloError: a silo's folder is damaged, or cannot be read.
        RunError: a teacher started from others: it would be made anew, and the run mix the answers of two.
    """
    weights = public_weights(config.teachers)
    now = None if weights is None else weights.sha256
    for silo in range(config.silos.count):
        old = standing_teacher(base / str(silo))
        before = None if old is None else old.training.get("public_weights")
        if old is not None and old.origin == "trained" and before != now:
            constraint = f"started from other weights, SHA-256 {before} -> {now}"
            remedy = "resume the run with the file of teachers.weights that it began with"
            raise RunError(explain("silo", str(base / str(silo)), constraint, remedy))


def configured_silos(config: RunConfig, unsaid: Mapping[str, object] = _SIMULATED) -> tuple[list[str], list[Policy]]:
    """Architectures of the teachers and policies of the silos, each dealt round-robin; no data is looked at.

    Args:
        config: configuration of the run.
        unsaid: fields of policies that the configuration does not name.

    Raises:
        ConfigError: for an unknown architecture, or an unknown kind of training or policy field.
    """
    names = config.teachers.architecture
    architectures = [names] if isinstance(names, str) else list(names)
    training_plan(config.teachers)
    check_architectures(config.teachers, architectures)
    shared, own = config.silos.policy, config.silos.policies or ({},)
    return architectures, [validate(Policy, {**unsaid, **shared, **fields}, "silos.policy") for fields in own]


def _check_adopted(adopted: dict[int, Manifest], evaluation: ImageSet | None) -> None:
    """Does nothing where the adopted silos fit the held-out images, or without any, each other."""
    if evaluation is not None:
        held_out = SiloClasses(evaluation.classes, evaluation.class_names)
        check_fit(adopted, held_out, evaluation.image_shape, "the run's held-out images")
    elif adopted:
        silo, first = next(iter(adopted.items()))
        check_fit(adopted, classes_of(first), first.image_shape, f"teacher and images of silo {silo} ({first.silo})")


def _check_public(weights: Pretrained, base: Path) -> None:
    """Does nothing where the weights are those of no teacher of the silos, now or before.

    Raises:
        ConfigError: they are: what was trained on private images is not public.
        ManifestError: a manifest is damaged.
    """
    for manifest in [*base.glob(f"*/{MANIFEST_FILE}"), *base.glob(f"*/{PAST}/*/{MANIFEST_FILE}")]:
        try:
            digest = parse_mapping(manifest.read_bytes()).get("weights_sha256")
        except (OSError, ValueError) as error:
            raise ManifestError(
                explain("manifest", str(manifest), f"cannot be read ({error})", "restore it")
            ) from error
        if digest == weights.sha256:
            constraint = f"is a teacher of {manifest.parent}, which private images made"
            raise ConfigError(explain("teachers.weights", str(weights.path), constraint, "name public weights"))


def _beyond(base: Path, count: int) -> str | None:
    """A sentence about silos in the folder whose number is not below `count`; None where there are none."""
    names = [path.parent.name for path in base.glob(f"*/{MANIFEST_FILE}")]
    numbers = [int(name) for name in names if name.isdecimal() and name == str(int(name))]
    if not (more := sorted(number for number in numbers if number >= count)):
        return None
    shown = ", ".join(map(str, more[:_NAMED])) + (", ..." if len(more) > _NAMED else "")
    return f"{len(more)} more silo(s) in {base} take no part, for silos.count is {count}: {shown}"


def _in_common(held_out: list[bytes], images: ImageSet) -> int:
    """Number of held-out images, given by their digests, that are training images too."""
    trained_on = set(images.digests()) if held_out else set()
    return sum(digest in trained_on for digest in held_out)


def _seen_before(equal: int, held_out: int, silo: str) -> str:
    unfit = "accuracy on them says nothing about new pictures"
    return f"{equal} of the {held_out} held-out images are, pixel for pixel, training images of {silo}: {unfit}"


class _Readings:
    """Shows each reading once: silos that images are dealt to share one."""

    def __init__(self, show: Callable[[ReadingReport], None] | None) -> None:
        self._show = show
        self._last: ReadingReport | None = None

    def add(self, images: ImageSet | None) -> None:
        """Shows the reading of these images, where it is not the last one again."""
        if images is None or images.reading is None or images.reading is self._last:
            return
        self._last = images.reading
        if self._show is not None:
            self._show(self._last)


def _silent(line: str) -> None:
    """Shows nobody."""
