# SPDX-License-Identifier: Apache-2.0
"""result.json: the figures of a finished run, written last, so that a run with it is finished.

Schema 0 are files without the key `schema`; schema 1 is the same with that key; schema 2 renamed keys that said
something else than they held. Files of all three are read, and given in the form of schema 2. Keys that not every
earlier version wrote are not required.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NotRequired, TypeVar

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from fedcpsc.errors import RunError, explain
from fedcpsc.runs.layout import RESULT_FILE
from fedcpsc.runs.real_pictures import RealPictures
from fedcpsc.strict_json import parse_mapping

__all__ = [
    "RESULT_SCHEMA",
    "EarlierRunResult",
    "EnsembleResult",
    "FederatedEvaluation",
    "LogitAdjustment",
    "Network",
    "PooledEvaluation",
    "RunResult",
    "Seconds",
    "SiloEvaluation",
    "SiloResult",
    "StartingWeights",
    "TonesResult",
    "WhiteBoxResult",
    "check_schema",
    "read_result",
    "read_white_box_result",
    "upgrade_result",
]

RESULT_SCHEMA: Final = 2

_RENAMED: Final = {"queries_per_silo": "answers_per_silo"}  # schema 1 -> schema 2
_RENAMED_IN_SILOS: Final = {"queries_answered": "answers", "left": "stopped"}


class StartingWeights(TypedDict):
    """The weights of others that a student started from.

    Attributes:
        file: name of their file.
        sha256: SHA-256 of the file, in hexadecimal digits.
        tensors: number of tensors taken from it.
        left: names of the tensors that stayed at their initialisation, those of the head.
        note: what that means, in words.
    """

    file: str
    sha256: str
    tensors: int
    left: list[str]
    note: str


class Network(TypedDict):
    """A network and how it does.

    Attributes:
        accuracy: share of the held-out images classified rightly, in [0, 1]; None where not measured.
        architecture: name of the network; of a module of the caller's own the name of its class.
        width: width of a network of `models.registry`.
        parameters: number of its weights.
        own_module: whether it is a module of the caller's own; missing where it is not.
        optimiser: optimiser and schedule of its fit, in words.
        weights: weights of others that it started from; missing where there were none.
    """

    accuracy: float | None
    architecture: NotRequired[str]
    width: NotRequired[int]
    parameters: NotRequired[int]
    own_module: NotRequired[bool]
    optimiser: NotRequired[str]
    weights: NotRequired[StartingWeights]


class EnsembleResult(TypedDict):
    """What the teachers reach together under the aggregation rule; the accuracy is None outside a simulation."""

    accuracy: float | None
    rule: str


class SiloResult(TypedDict):
    """One silo.

    Attributes:
        teacher_accuracy, train_size: accuracy in [0, 1] and number of training images; None outside a simulation.
        form, noise_sigma: answer form it was asked for; standard deviation of the noise on each probability.
        answers: number of images whose answers of it this run's bank holds.
        answers_here: number of them that it answered, and was charged for, in this run itself; missing where that is
            all of them.
        answers_left: number of images that its owner still allows.
        refusals, replies: numbers of refusals by code, and of replies by outcome.
        stopped: reason why it was no longer asked; None where it was asked to the end.
        weight: mean weight of its answers in the targets, in [0, 1].
        reputation, agreement, suspicion: how far it is believed, as in `SiloLine`; missing where silos are not judged.
        reply_seconds: median seconds of a round trip; None where it answered nothing.
        class_names: names of its own classes, in their order; None where it named none.
        none_class: whether it could answer that an image is none of them.
        dp, epsilon, delta, unit, relation, mechanism: privacy claim.
    """

    id: str
    teacher_accuracy: float | None
    train_size: int | None
    answers: int
    answers_here: NotRequired[int]
    refusals: dict[str, int]
    dp: bool
    epsilon: float | None
    form: NotRequired[str | None]
    noise_sigma: NotRequired[float | None]
    answers_left: NotRequired[int | None]
    replies: NotRequired[dict[str, int]]
    stopped: NotRequired[str | None]
    weight: NotRequired[float]
    reputation: NotRequired[float]
    agreement: NotRequired[float | None]
    suspicion: NotRequired[str | None]
    reply_seconds: NotRequired[float | None]
    class_names: NotRequired[list[str] | None]
    none_class: NotRequired[bool]
    delta: NotRequired[float | None]
    unit: NotRequired[str | None]
    relation: NotRequired[str | None]
    mechanism: NotRequired[str | None]


class Seconds(TypedDict):
    """Where the seconds went; the waiting shares are in [0, 1]."""

    total: float
    distillation: float
    waiting: float
    waiting_share: NotRequired[float]
    waiting_share_after_first_round: NotRequired[float]


class EarlierRunResult(TypedDict):
    """An earlier run whose answers this run's bank holds, see `lineage.SourceRun`."""

    run: str
    folder: str
    commit: str | None
    finished: bool
    images: int
    answers: dict[str, int]


class SiloEvaluation(TypedDict):
    """What one silo says of the student; a claim of that silo, which nobody can check.

    Attributes:
        right: number of its held-out images classified rightly, with noise where `sigma` > 0; None where it gave none.
        sigma: standard deviation of that noise, in images; 0 where the number is exact.
        images: number of its held-out images; None where it does not tell.
        accuracy, standard_error: share of right images, in [0, 1], and its standard error, by noise and number of
            images; None where the number of images is not told.
        dp, epsilon: whether a guarantee covers the number, and the silo's epsilon for all that it releases.
        reason: reason why there is no number, or why it is not believed and not pooled; None where it is.
    """

    id: str
    right: int | None
    sigma: float | None
    images: int | None
    accuracy: float | None
    standard_error: float | None
    dp: bool | None
    epsilon: float | None
    reason: str | None


class PooledEvaluation(TypedDict):
    """The images of several silos as one sample; the standard error counts noise and number of images."""

    accuracy: float
    standard_error: float
    images: int
    silos: int


class LogitAdjustment(TypedDict):
    """What was added to the student's class biases, by the silos' counts (`evaluation.logit_adjustments`).

    Attributes:
        biases: number added to the logit of each class, in all shifts together; None where none was kept.
        shifts: number of shifts that were kept, >= 0.
        before, after: pooled estimates of the student without and with them, over the silos that judged both; None
            where none of them tells how many images it has.
        accuracy_before: accuracy of the student without, on the server's held-out images; None without any.
        reason: reason why no other, or no further, biases were tried or kept.
    """

    biases: list[float] | None
    shifts: int
    before: PooledEvaluation | None
    after: PooledEvaluation | None
    accuracy_before: float | None
    reason: str | None


class FederatedEvaluation(TypedDict):
    """What the silos say of the student, on held-out images of their own (`evaluation.at_silos`).

    Attributes:
        silos: an entry for each silo of the run; none where nobody was asked.
        pooled: estimate over all silos that tell how many images they have; None where none does.
        reason: reason why nobody was asked; None where silos were.
        recall: share of each class's images that are classified rightly, over the silos that tell their counts class
            by class, in [0, 1]; None for a class with too few; missing where no silo tells.
        adjustment: what was added to the student's class biases; missing where silos told nothing class by class, or
            it was not wished for.
    """

    silos: list[SiloEvaluation]
    pooled: PooledEvaluation | None
    reason: str | None
    recall: NotRequired[list[float | None]]
    adjustment: NotRequired[LogitAdjustment]


class Estimate(TypedDict):
    """How much of what the silos know the student has, told without test images.

    Attributes:
        agreement: median agreement of two silos on what they know best in common, in [0, 1].
        steadfastness: share of images of the priors that the student gives the same class in another view, in [0, 1].
        share: the student's accuracy as a share of the silos' ensemble's, in [0, 1].
        error: mean error of such an estimate, of kinds of pictures that it was not fitted to, in [0, 1].
    """

    agreement: float
    steadfastness: float
    share: float
    error: float


class TonesResult(TypedDict):
    """How light query images were found to be best, see `priors.tones.Tones`: the pixels' mean and its spread."""

    mean: float
    spread: float


class RunResult(TypedDict):
    """The whole file.

    Attributes:
        schema: number of this layout of the file; missing in files of earlier versions.
        answers_per_silo: largest number of images that a silo has answered.
        form: answer forms, separated by ", ".
        peak_memory_mib: largest resident memory of the server's process; None where the system does not report it.
        classes: number of classes K, the student's outputs.
        class_names: names of the K classes, in their order; None where they go by number.
        image_shape: shape of an image, [C, H, W].
        evaluation_images: number of held-out images; None without any.
        simulated: whether the silos' private figures were measured beside the run.
        not_joined: number of silos that were expected and did not join.
        excluded: names of the silos that were left out (`aggregation.exclude`).
        not_judged: reason why nothing can be said against any silo; None where silos were judged.
        turned_away: reasons why silos, or nodes, that answered were not let in, by name; missing where there are none.
        refit: whether nobody was asked, and the student was fitted to what earlier runs banked; missing where not.
        earlier_runs: earlier runs that answers of the bank came from, the earliest first; missing where there are none.
        images: number of images that were banked; missing in files of earlier versions.
        federated_evaluation: what the silos say of the student; missing where they were not to be asked.
        estimate: how much of what the silos know the student has; missing where that cannot be told.
        real_pictures: real pictures that query images come from; missing where the run is free of all data.
        tones: how light the silos' answers said that query images should be; missing where they were not asked.
    """

    schema: NotRequired[int]
    name: str
    student: Network
    ensemble: EnsembleResult
    silos: list[SiloResult]
    answers_per_silo: int
    bytes_sent: int
    bytes_received: int
    seconds: Seconds
    seed: int
    versions: dict[str, str]
    commit: str | None
    form: NotRequired[str]
    peak_memory_mib: NotRequired[float | None]
    classes: NotRequired[int]
    class_names: NotRequired[list[str] | None]
    image_shape: NotRequired[list[int]]
    evaluation_images: NotRequired[int | None]
    device: NotRequired[str]
    simulated: NotRequired[bool]
    not_joined: NotRequired[int]
    excluded: NotRequired[list[str]]
    not_judged: NotRequired[str | None]
    turned_away: NotRequired[dict[str, str]]
    refit: NotRequired[bool]
    earlier_runs: NotRequired[list[EarlierRunResult]]
    images: NotRequired[int]
    federated_evaluation: NotRequired[FederatedEvaluation]
    estimate: NotRequired[Estimate]
    real_pictures: NotRequired[list[RealPictures]]
    tones: NotRequired[TonesResult]


class WhiteBoxResult(TypedDict):
    """The whole file of a white-box run.

    Attributes:
        seconds: seconds of the teacher's training and of the distillation.
        chosen_on_held_out: whether the epoch was chosen by the held-out images, as the published code does.
    """

    schema: NotRequired[int]
    name: str
    mode: str
    private: bool
    student: Network
    teacher: Network
    generator_parameters: int
    result_of_epoch: int
    chosen_on_held_out: bool
    reference_quirks: bool
    teacher_images: int
    evaluation_images: int | None
    evaluated_on: str
    seconds: dict[str, float]
    device: str
    threads: int
    seed: int
    versions: dict[str, str]
    commit: str | None


Form = TypeVar("Form")


def read_result(run_dir: Path) -> RunResult | None:
    """The figures of a run in the form of `RESULT_SCHEMA`, also of an older file; None where it has not finished.

    Raises:
        RunError: the file is damaged, lacks something, or was written by a newer version.
    """
    return _read(run_dir / RESULT_FILE, TypeAdapter(RunResult))


def read_white_box_result(run_dir: Path) -> WhiteBoxResult | None:
    """The same of a white-box run.

    Raises:
        RunError: as `read_result`.
    """
    return _read(run_dir / RESULT_FILE, TypeAdapter(WhiteBoxResult))


def check_schema(tree: Mapping[str, object], path: Path, newest: int) -> None:
    """Lets pass what this version can read: `newest` and below; a file without the key has schema 0.

    Raises:
        RunError: the file is of a newer version, or its schema is no number.
    """
    schema = tree.get("schema", 0)
    if isinstance(schema, bool) or not isinstance(schema, int) or schema < 0:
        raise RunError(explain("schema", schema, f"must be a number in {path}", "restore the file"))
    if schema > newest:
        constraint = f"{path} was written by a newer version (this one knows 0 to {newest})"
        remedy = "read it with the version of fedcpsc that wrote it"
        raise RunError(explain("schema", schema, constraint, remedy))


def upgrade_result(tree: dict[str, Any]) -> dict[str, Any]:
    """The content of a result.json in the form of `RESULT_SCHEMA`; what is not of an older form comes back as it is.

    Args:
        tree: content of the file, not yet checked; left unchanged.
    """
    if tree.get("schema", 0) >= RESULT_SCHEMA:
        return tree
    named = {_RENAMED.get(key, key): value for key, value in tree.items()} | {"schema": RESULT_SCHEMA}
    if isinstance(silos := tree.get("silos"), list):
        named["silos"] = [_upgraded_silo(silo) for silo in silos]
    return named


def _upgraded_silo(silo: Any) -> Any:
    if not isinstance(silo, dict):
        return silo  # damage, which the check of the whole names
    return {_RENAMED_IN_SILOS.get(key, key): value for key, value in silo.items()}


def _read(path: Path, form: TypeAdapter[Form]) -> Form | None:
    restore = f"restore the file, or delete {path.name} and let the run end again with --resume"
    try:
        tree = parse_mapping(path.read_bytes())
        check_schema(tree, path, RESULT_SCHEMA)
        tree = upgrade_result(tree)
        form.validate_python(tree, strict=True)
    except FileNotFoundError:
        return None
    except OSError as error:
        remedy = "give yourself the right to read it"
        raise RunError(explain("run", str(path), f"cannot be read ({error.strerror})", remedy)) from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()[:3])
        raise RunError(explain("run", str(path), f"its files lack something ({faults})", restore)) from error
    except ValueError as error:
        raise RunError(explain("run", str(path), f"is damaged ({error})", restore)) from error
    return tree  # type: ignore[return-value]  # checked by `form` just now, and returned with the keys it does not know
