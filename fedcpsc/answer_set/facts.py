# SPDX-License-Identifier: Apache-2.0
"""answers.json: what a data set of answers holds, whose they are, and from which run.

It stands beside the files of rows, whichever format these have, and a bank is made of both. It names the silos whose
answers were handed on and no others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field

from fedcpsc.answer_set.set_format import SetFormat
from fedcpsc.class_names import fault_of_class_names
from fedcpsc.errors import BankError, ConfigError, ProtocolError, RunError, explain
from fedcpsc.files import write_whole
from fedcpsc.label_sets import LabelSets
from fedcpsc.protocol.codec import fields_of, from_fields
from fedcpsc.protocol.messages import Description
from fedcpsc.runs.result import check_schema
from fedcpsc.strict_json import format_json, parse_mapping
from fedcpsc.typed_yaml import Positive, Strict, validate

__all__ = [
    "FACTS_FILE",
    "AnswerSetFacts",
    "SharedFile",
    "SharedRun",
    "SharedSilo",
    "file_hash",
    "read_facts",
    "without_class_counts",
]

FACTS_FILE: Final = "answers.json"
_SCHEMA: Final = 1
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Count = Annotated[int, Field(ge=0)]
_PIECE = 2**20  # bytes that are hashed together
_EXPORT = "give a folder that fedcpsc bank export wrote"


class SharedFile(Strict):
    """One file of rows.

    Attributes:
        name: path of the file below the data set's folder.
        rows: number of its rows.
        sha256: hash of its bytes; None where whoever changed it took the hash away, and nothing is compared then.
    """

    name: Annotated[str, Field(pattern=r"^data/[A-Za-z0-9._-]+$")]
    rows: Positive
    sha256: _Sha256 | None = None


class SharedSilo(Strict):
    """One silo whose answers were handed on.

    Attributes:
        name: name of the silo.
        column: name of the column, or tensor, of its answers; None where the data set holds targets alone.
        answers: number of rows that it answered.
        places: number, in the data set's classes, of each of the silo's own classes.
        none_class: whether its answers have a last column for "none of these".
        description: what the silo said of itself, as it crosses the wire; without class counts.
    """

    name: str
    column: str | None
    answers: _Count
    places: tuple[_Count, ...]
    none_class: bool
    description: dict[str, Any]

    @property
    def width(self) -> int:
        """Number of columns of its answers."""
        return len(self.places) + self.none_class

    @property
    def said(self) -> Description:
        """Its description.

        Raises:
            ProtocolError: it is none.
        """
        message = from_fields(self.description, {})
        if not isinstance(message, Description):
            raise ProtocolError(explain("description", self.description.get("kind"), "is another message", _EXPORT))
        return message


class SharedRun(Strict):
    """The run that asked.

    Attributes:
        name, seed: name and seed of the run.
        commit: commit of the code; None where it is not known.
        versions: versions of what the run stood on.
        finished: whether it had finished when the data set was written.
        simulated: whether its silos were simulated on one machine, as far as the run says so.
        settings: values of the configuration that say how it asked and aggregated, by their dotted keys.
    """

    name: str
    seed: int
    commit: str | None
    versions: dict[str, str]
    finished: bool
    simulated: bool
    settings: dict[str, bool | int | float | str | None]


class AnswerSetFacts(Strict):
    """The whole file, without its schema number.

    Attributes:
        format: format of the rows.
        rows: number of images N, each answered by at least one of the silos.
        image_shape: shape of an image, (C, H, W).
        classes: number of classes K of the targets.
        class_names: names of the K classes; None where they go by number.
        aliases: name in `class_names` by a silo's own word for that class, where it has another one.
        silos: silos whose answers these are, in the order of the bank.
        origins: words for where an image comes from, and the number of images that come from there.
        files: files of rows, in their order.
        run: run that asked.
        silos_left_out: number of silos of the run whose answers are not handed on.
        classes_left_out: number of classes of the run that those silos alone know.
        images_left_out: number of the run's images that none of these silos has answered.
    """

    format: SetFormat
    rows: Positive
    image_shape: tuple[Positive, Positive, Positive]
    classes: Annotated[int, Field(ge=2)]
    class_names: tuple[str, ...] | None
    aliases: dict[str, str] = Field(default_factory=dict)
    silos: Annotated[tuple[SharedSilo, ...], Field(min_length=1)]
    origins: Annotated[dict[str, _Count], Field(min_length=1, max_length=256)]
    files: tuple[SharedFile, ...]
    run: SharedRun
    silos_left_out: _Count = 0
    classes_left_out: _Count = 0
    images_left_out: _Count = 0

    @property
    def label_sets(self) -> LabelSets:
        """What the columns of each silo's answers mean."""
        places = tuple(silo.places for silo in self.silos)
        return LabelSets(self.classes, self.class_names, places, tuple(silo.none_class for silo in self.silos))

    @property
    def with_answers(self) -> bool:
        """Whether it holds what each silo answered, not the targets alone."""
        return all(silo.column is not None for silo in self.silos)

    @property
    def descriptions(self) -> dict[str, Description]:
        """What each silo said of itself, by its name."""
        return {silo.name: silo.said for silo in self.silos}

    def save(self, folder: Path) -> None:
        """Writes the file into the data set's folder.

        Raises:
            OSError: it cannot be written.
        """
        path = folder / FACTS_FILE
        tree = {"schema": _SCHEMA, **self.model_dump(mode="json")}
        write_whole(path, format_json(tree, path, indent=1) + "\n")


def read_facts(folder: Path) -> AnswerSetFacts:
    """What a data set's folder says that it holds; the rows themselves are not looked at.

    Raises:
        BankError: the folder holds no data set of answers, or the file is damaged, contradicts itself, or was written
            by a newer version.
    """
    path = folder / FACTS_FILE
    try:
        tree = parse_mapping(path.read_bytes())
        check_schema(tree, path, _SCHEMA)
        facts = validate(AnswerSetFacts, {key: value for key, value in tree.items() if key != "schema"}, str(path))
        fault = next((fault for fault in _faults(facts) if fault is not None), None)
    except FileNotFoundError as error:
        raise BankError(explain("answers", str(folder), f"holds no {FACTS_FILE}", _EXPORT)) from error
    except (OSError, ValueError) as error:
        raise BankError(explain("answers", str(path), f"cannot be read ({error})", "restore the file")) from error
    except (ConfigError, RunError, ProtocolError) as error:
        raise BankError(str(error)) from error
    if fault is not None:
        raise BankError(explain("answers", str(path), fault, "restore the file"))
    return facts


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _faults(facts: AnswerSetFacts) -> Iterator[str | None]:
    """What in the facts contradicts the rest, in words; None for each check that finds nothing."""
    if facts.class_names is not None:
        yield fault_of_class_names(facts.class_names, facts.classes)
    for silo in facts.silos:
        said, within = silo.said, all(place < facts.classes for place in silo.places)
        if not within or len(set(silo.places)) < len(silo.places):
            yield f"the classes of {silo.name!r} are not different numbers below {facts.classes}"
        if (said.silo, said.classes, said.none_class) != (silo.name, silo.width, silo.none_class):
            yield f"the description of {silo.name!r} is of another silo, or of other classes"
        if said.image_shape != facts.image_shape:
            yield f"the description of {silo.name!r} is of images {said.image_shape}, not {facts.image_shape}"
    if not facts.label_sets.known.any(0).all():
        yield "it has a class that none of its silos knows"
    if _twice([silo.name for silo in facts.silos]) or _twice([silo.column for silo in facts.silos if silo.column]):
        yield "it has two silos of one name, or of one column"
    if len({silo.column is None for silo in facts.silos}) > 1:
        yield "it has the answers of some of its silos alone"
    if sum(facts.origins.values()) != facts.rows:
        yield f"its origins do not count {facts.rows:,} images together"
    if _twice([file.name for file in facts.files]) or sum(file.rows for file in facts.files) != facts.rows:
        yield f"its files do not hold {facts.rows:,} rows together, or one is named twice"


def _twice(names: list[str]) -> bool:
    return len(set(names)) < len(names)


def without_class_counts(said: Description) -> dict[str, Any]:
    """A description as JSON has it, without the class counts: these were shown to the server alone."""
    fields: dict[str, Any] = json.loads(json.dumps(fields_of(replace(said, class_report=None))[0]))
    return fields
