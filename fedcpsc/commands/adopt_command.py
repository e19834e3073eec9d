# SPDX-License-Identifier: Apache-2.0
"""`fedcpsc adopt`: a finished model becomes a silo, by one command."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedcpsc.commands.owner_words import Json, explain_errors
from fedcpsc.errors import ConfigError, explain

if TYPE_CHECKING:
    from fedcpsc.gatekeeper.policy import Policy
    from fedcpsc.silos.adoption.adopt import Adopted

__all__ = ["adopt"]

_CLASSES_SHOWN = 20


class Fit(Enum):
    """Ways to bring a picture to the model's size."""

    SQUASH = "squash"
    CROP = "crop"
    PAD = "pad"


def adopt(
    model: Annotated[
        Path,
        typer.Argument(
            help="The model: a file (ONNX, torch.export, TorchScript, safetensors, a state dict of torch.save), or a"
            " folder in Hugging Face form.",
            show_default=False,
        ),
    ],
    silo_dir: Annotated[
        Path,
        typer.Argument(help="The silo's folder to make; nothing that is there is overwritten.", show_default=False),
    ],
    *,
    classes: Annotated[
        Path | None, typer.Option(help="Text file with the names of the classes, one a line, in the outputs' order.")
    ] = None,
    input_shape: Annotated[
        str | None, typer.Option("--input", help="Shape of the images: channels x height x width, as 3x224x224.")
    ] = None,
    normalisation: Annotated[
        str | None,
        typer.Option(
            help="What was done to pixels in training: imagenet; half (mean and std 0.5); none (pixels in [0, 1]);"
            " bytes (0 to 255); or mean/std, as 0.1307/0.3081 or 0.5,0.5,0.5/0.2,0.2,0.2."
        ),
    ] = None,
    population: Annotated[
        str | None,
        typer.Option(help="Name of the people or things whose records it was trained on; it keeps the budget."),
    ] = None,
    silo: Annotated[
        str | None, typer.Option(help="Name of the silo, which the server sees; where left out, the folder's.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="Teacher format that the file must be; where left out, what is found.")
    ] = None,
    architecture: Annotated[
        str | None, typer.Option(help="Network that weights alone belong to, as resnet18, timm/resnet18 or convnet.")
    ] = None,
    width: Annotated[int | None, typer.Option(min=1, help="Width of a network of this project.")] = None,
    entry_point: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FUNCTION", help="Installed Python code that makes the teacher of the file."),
    ] = None,
    output: Annotated[
        str | None, typer.Option(help="Name of the output to use, of an ONNX model with several.")
    ] = None,
    probabilities: Annotated[
        bool | None,
        typer.Option(
            "--probabilities/--logits",
            help="Whether the outputs have gone through a softmax already; where left out, a trial shows it.",
        ),
    ] = None,
    none_class: Annotated[
        bool, typer.Option("--none-class", help="The last output, which has no name, says: none of these classes.")
    ] = False,
    class_counts: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="Numbers of private images of each class. They stay in the silo, unless its policy shares them.",
        ),
    ] = None,
    resize: Annotated[
        Fit | None, typer.Option(help="How pictures of another size were fitted in training: squash, crop or pad.")
    ] = None,
    policy: Annotated[Path | None, typer.Option(help="The silo's policy, instead of the default one.")] = None,
    answers: Annotated[
        int | None, typer.Option(min=1, help="Number of images answered over all time, under the default policy.")
    ] = None,
    share_answers: Annotated[
        bool,
        typer.Option(
            "--share-answers",
            help="Let servers hand the silo's answers on to others, under the default policy; without it they may not.",
        ),
    ] = False,
    pictures: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a few pictures of your own, to see what the model makes of them; sub-folders may be named"
            " like classes. They and what is found stay here."
        ),
    ] = None,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Also take a file that can run code when it is opened.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a silo's folder of a finished model: find out what it is, ask for the rest, try it, write it whole.

    Nothing is charged, and nothing that is there is overwritten.

    Example: [bold]fedcpsc adopt model.onnx silos/mine --classes names.txt --input 3x224x224 --normalisation imagenet
    --population "patients of clinic north"[/]
    """
    with explain_errors():
        from fedcpsc.silos.adoption.adopt import adopt as make
        from fedcpsc.silos.adoption.names_file import read_class_names
        from fedcpsc.silos.adoption.wishes import Wishes, read_shape
        from fedcpsc.teachers.recognised import Hints

        hints = Hints(
            entry_point=entry_point,
            architecture=architecture,
            width=width,
            image_shape=None if input_shape is None else read_shape(input_shape),
            probabilities=probabilities,
            output=output,
            allow_code=allow_code,
        )
        notes: list[str] = []
        names = None if classes is None else read_class_names(classes, notes)
        wishes = Wishes(
            hints=hints,
            class_names=names,
            none_class=none_class,
            normalisation=normalisation,
            population=population,
            silo=silo,
            kind=kind,
            class_counts=None if class_counts is None else _counts(class_counts),
            resize=None if resize is None else resize.value,
            policy=_policy(policy, answers, share_answers=share_answers),
            notes=tuple(notes),
        )
        found = make(model, silo_dir, wishes, pictures)
        for line in [json.dumps(_facts(found))] if as_json else _in_words(found, model):
            typer.echo(line)


def _counts(text: str) -> tuple[int, ...]:
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(explain("--class-counts", text, "must be whole numbers", "for example 120,80,33")) from error
    if min(counts) < 0 or sum(counts) < 1:
        raise ConfigError(explain("--class-counts", text, "must be >= 0, and not all 0", "for example 120,80,33"))
    return counts


def _policy(path: Path | None, answers: int | None, *, share_answers: bool) -> Policy:
    from fedcpsc.gatekeeper.policy import Policy, load_policy

    if path is not None and answers is not None:
        raise ConfigError(explain("--answers", answers, "is in the policy's file too", "give --policy or --answers"))
    if path is not None and share_answers:
        remedy = "give --policy or --share-answers"
        raise ConfigError(explain("--share-answers", True, "is for the policy's file to say", remedy))
    if path is not None:
        return load_policy(path)
    policy = Policy() if answers is None else Policy(answers=answers)
    return policy.model_copy(update={"share_answers": share_answers})


def _in_words(found: Adopted, model: Path) -> Iterator[str]:
    manifest, policy = found.manifest, found.policy
    names = manifest.class_names or ()
    shape = "x".join(map(str, manifest.image_shape))
    last = ", and one more for none of these" if manifest.none_class else ""
    meaning = "probabilities" if manifest.probabilities else "logits"
    which = f", {manifest.architecture}" if manifest.architecture != manifest.kind else ""
    yield f"{model}: kind {manifest.kind}{which}, images {shape}, {manifest.outputs} outputs ({meaning})"
    yield from (f"  {note}" for note in found.notes)
    shown = ", ".join(f"{number} {name}" for number, name in enumerate(names[:_CLASSES_SHOWN]))
    more = f", ... {len(names) - 1} {names[-1]}" if len(names) > _CLASSES_SHOWN else ""
    yield f"classes: {shown}{more}{last}"
    yield f"pixels: {manifest.normalisation.in_words()}; pictures of another size: {manifest.resize}"
    yield f"tried on invented images: {found.trial}"
    yield from (f"warning: {warning}" for warning in found.trial.warnings)
    if found.pictures is not None:
        yield "your own pictures, which stay here:"
        yield from (f"  {line}" for line in found.pictures.lines())
    yield (
        f"made {found.folder}: silo {manifest.silo}, population {manifest.population!r}, at most {policy.answers:,}"
        " answers over all time (policy.yaml)"
    )
    yield f"next: fedcpsc policy check {found.folder}"
    yield f"then: fedcpsc gatekeeper serve {found.folder} --socket /run/fedcpsc/silo.sock"


def _facts(found: Adopted) -> Mapping[str, object]:
    seen = found.pictures
    return {
        "folder": str(found.folder),
        "manifest": found.manifest.model_dump(mode="json"),
        "answers": found.policy.answers,
        "batch_size": found.policy.service.batch_size,
        "seconds_per_1000": found.trial.seconds,
        "bytes_per_1000": found.trial.peak_bytes_of_1000,
        "notes": list(found.notes),
        "warnings": list(found.trial.warnings),
        "pictures": None if seen is None else {"accuracy": seen.accuracy, "lines": list(seen.lines())},
    }
