# SPDX-License-Identifier: Apache-2.0
"""What a caller of `fedcpsc.simulate` says of its models, as far as it must be said, one part for each silo."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from torch import nn

from fedcpsc.class_names import fault_of_class_names
from fedcpsc.errors import ConfigError, PolicyError, explain
from fedcpsc.gatekeeper.policy import Policy, load_policy
from fedcpsc.models.registry import Classifier
from fedcpsc.silos.adoption.wishes import NORMALISATIONS, named_normalisation
from fedcpsc.silos.modules import ModuleFacts
from fedcpsc.teachers.manifest import Manifest, Normalisation, load_manifest
from fedcpsc.typed_yaml import validate

__all__ = ["Classes", "Model", "NormalisationLike", "Outputs", "PolicyLike", "facts_of_modules", "folders_of"]

Model: TypeAlias = "nn.Module | str | os.PathLike[str]"
"""A torch module, or the folder of a silo that is there already."""

Classes: TypeAlias = "int | Sequence[str] | Sequence[Sequence[str]]"
PolicyLike: TypeAlias = "Policy | Mapping[str, object] | str | os.PathLike[str]"
NormalisationLike: TypeAlias = "str | Normalisation | tuple[float | Sequence[float], float | Sequence[float]]"
Outputs: TypeAlias = str
_OUTPUTS = {"logits": False, "probabilities": True, None: None}
_LEAST_CLASSES = 2


@dataclass(frozen=True, kw_only=True)
class Said:
    """The arguments of `fedcpsc.simulate` that speak of models, as they were given."""

    classes: Classes | None
    image_shape: tuple[int, int, int] | None
    normalisation: NormalisationLike | None
    outputs: Outputs | None
    policy: PolicyLike | Sequence[PolicyLike] | None
    class_counts: Sequence[Sequence[int] | None] | None
    names: Sequence[str] | None


def folders_of(models: Sequence[Model]) -> dict[int, tuple[Path, Manifest]]:
    """Those models that are silos' folders, with their manifests, by number.

    Raises:
        ConfigError: where there is no model, or one is neither module nor path.
        ManifestError: where a folder is no silo's.
    """
    if isinstance(models, nn.Module | str | os.PathLike) or not models:
        shown = "must be a list with a model for each silo"
        raise ConfigError(explain("models", type(models).__name__, shown, "for example simulate([a, b, c], ...)"))
    found = {}
    for number, model in enumerate(models):
        if isinstance(model, nn.Module):
            continue
        if not isinstance(model, str | os.PathLike):
            shown = "is neither a torch module nor the folder of a silo"
            remedy = "wrap it into a torch.nn.Module, or make a folder of it: fedcpsc adopt"
            raise ConfigError(explain(f"models[{number}]", type(model).__name__, shown, remedy))
        found[number] = (Path(model), load_manifest(Path(model)))
    return found


def facts_of_modules(
    models: Sequence[Model], folders: Mapping[int, tuple[Path, Manifest]], said: Said
) -> dict[int, ModuleFacts]:
    """What is known of each module, by its number.

    Args:
        models: models of the silos.
        folders: those of them that are folders, as `folders_of` returns them.
        said: what the caller says of the modules.

    Raises:
        ConfigError: where something is said wrong or not said.
        PolicyError: where a policy cannot be read.
    """
    modules = {number: model for number, model in enumerate(models) if isinstance(model, nn.Module)}
    names = _names(len(models), folders, said.names)
    if not modules:
        return {}
    shape = _image_shape(modules, folders, said.image_shape)
    normalisation = _normalisation(modules, said.normalisation, shape[0])
    if said.outputs not in _OUTPUTS:
        raise ConfigError(explain("outputs", said.outputs, "is unknown", "say logits or probabilities, or nothing"))
    if said.class_counts is not None and len(said.class_counts) != len(models):
        constraint = f"must be one for each of {len(models)} models"
        raise ConfigError(explain("class_counts", len(said.class_counts), constraint, "give None for what is not said"))
    facts = {}
    for number in modules:
        own = _classes(said.classes, number, len(models), [manifest for _, manifest in folders.values()])
        counts = None if said.class_counts is None else said.class_counts[number]
        facts[number] = ModuleFacts(
            silo=names[number],
            classes=own if isinstance(own, int) else len(own),
            class_names=None if isinstance(own, int) else own,
            image_shape=shape,
            normalisation=normalisation,
            probabilities=_OUTPUTS[said.outputs],
            class_counts=None if counts is None else tuple(int(count) for count in counts),
            policy=_policy(said.policy, number, len(models)),
        )
    return facts


def _names(count: int, folders: Mapping[int, tuple[Path, Manifest]], given: Sequence[str] | None) -> list[str]:
    own = {number: manifest.silo for number, (_, manifest) in folders.items()}
    if given is None:
        names = [own.get(number, f"silo-{number}") for number in range(count)]
    elif isinstance(given, str) or len(given) != count:
        raise ConfigError(explain("names", given, f"must be one for each of {count} models", "name each silo"))
    else:
        names = list(given)
        for number, silo in own.items():
            if names[number] != silo:
                shown = f"model {number} is the folder of {silo!r}"
                raise ConfigError(explain("names", names[number], shown, "give the name that its manifest has"))
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(explain("names", name, "is the name of two silos", "give each silo a name of its own"))
    return names


def _image_shape(
    modules: Mapping[int, nn.Module],
    folders: Mapping[int, tuple[Path, Manifest]],
    given: tuple[int, int, int] | None,
) -> tuple[int, int, int]:
    """The shape that is said, else the one that a folder's manifest or a module's own `image_shape` says."""
    found: object = given
    if found is None:
        known = [manifest.image_shape for _, manifest in folders.values()]
        own = [getattr(module, "image_shape", None) for module in modules.values()]
        found = next((shape for shape in (*known, *own) if shape is not None), None)
    sizes = tuple(found) if isinstance(found, tuple | list) else ()
    if len(sizes) != 3 or not all(isinstance(size, int) and size >= 1 for size in sizes):
        remedy = "say image_shape=(channels, height, width), for example (3, 32, 32)"
        raise ConfigError(explain("image_shape", found, "must be the shape (C, H, W) of the models' images", remedy))
    return sizes[0], sizes[1], sizes[2]


def _normalisation(modules: Mapping[int, nn.Module], given: NormalisationLike | None, channels: int) -> Normalisation:
    if isinstance(given, Normalisation):
        return given
    if given is None and all(isinstance(module, Classifier) for module in modules.values()):
        given = "half"  # what every network of this project takes
    if given is None:
        named = "; ".join(f"{name}: {meaning}" for name, meaning in NORMALISATIONS.items())
        shown = "must say what the models expect of pixels, which nothing shows"
        raise ConfigError(explain("normalisation", None, shown, f"say one of {named}; or (mean, std)"))
    if not isinstance(given, str):
        try:
            given = "/".join(
                ",".join(repr(float(value)) for value in (part if isinstance(part, Sequence) else [part]))
                for part in given
            )
        except (TypeError, ValueError) as error:
            shown = "must be a name, or (mean, std)"
            raise ConfigError(explain("normalisation", given, shown, "for example (0.1307, 0.3081)")) from error
    return named_normalisation(given, channels, "normalisation")


def _classes(given: Classes | None, number: int, count: int, known: Sequence[Manifest]) -> int | tuple[str, ...]:
    """Number of one module's classes, or their names."""
    remedy = "name the classes in the order of the models' outputs, for example classes=['cat', 'dog']; or say how many"
    if given is None and known:
        first = known[0]
        given = first.classes if first.class_names is None else first.class_names
    if isinstance(given, int) and not isinstance(given, bool) and given >= _LEAST_CLASSES:
        return given
    if given is None or isinstance(given, str | int) or (len(given) < _LEAST_CLASSES and count > 1):
        raise ConfigError(explain("classes", given, "must be at least two", remedy))
    own: Sequence[object] = given
    if not any(isinstance(name, str) for name in given):
        if len(given) != count:
            constraint = f"must be a list of names for each of {count} models"
            raise ConfigError(explain("classes", len(given), constraint, remedy))
        own = given[number]  # a list of each model's own
    names = tuple(own)
    if fault := fault_of_class_names(names, len(names)):
        raise ConfigError(fault)
    return tuple(str(name) for name in names)


def _policy(given: PolicyLike | Sequence[PolicyLike] | None, number: int, count: int) -> Policy | None:
    """One silo's policy; None where none is said.

    Raises:
        ConfigError: where there is not one for each silo.
        PolicyError: where it cannot be read.
    """
    if given is None or isinstance(given, Policy):
        return given
    if isinstance(given, str | os.PathLike):
        return load_policy(Path(given))
    if isinstance(given, Mapping):
        try:
            return validate(Policy, dict(given), "policy")
        except ConfigError as error:  # it is the silo's owner who acts
            raise PolicyError(str(error)) from error
    if len(given) != count:
        constraint = f"must be one for all silos, or one for each of {count}"
        raise ConfigError(explain("policy", f"{len(given)} policies", constraint, "give as many as models"))
    return _policy(given[number], number, count)
