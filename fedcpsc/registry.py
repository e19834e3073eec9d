# SPDX-License-Identifier: Apache-2.0
"""Choices that grow: names, the object behind each, and what that object says of itself.

A choice is a table of names. Beside each name stands the address of one object, `module:object`, in the form of
Python's entry points. The module is imported when its object is asked for, so names are checked, and the command line's
help is shown, without torch. Addresses stand in `fedcpsc.choices`, or in the entry points of a package that the user
has installed; YAML files and messages hold names alone.

- `Entry`: what every such object says of itself.
- `Choices`: the names, and where their objects are.
- `Registry`: the same, giving the objects.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from fedcpsc.errors import ConfigError, explain

__all__ = ["Choices", "Entry", "Registry"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """Base of every object that a configuration chooses by name.

    Attributes:
        name: name in configurations.
        summary: what it is, in one sentence.
        when: circumstances in which to take it, a clause after "take it".
        needs: what it cannot do without, beside what all of its kind have; empty where nothing.
        parameters: dotted keys of the run's configuration that it reads.
    """

    name: str
    summary: str
    when: str
    needs: str = ""
    parameters: tuple[str, ...] = ()


class Choices:
    """Names, and where the object of each is.

    Args:
        noun: what one of them is called in messages.
        group: entry-point group in which other packages may bring their own; None where they may not.
    """

    def __init__(self, noun: str, group: str | None = None) -> None:
        self.noun = noun
        self.group = group
        self._built_in: dict[str, EntryPoint] = {}

    def register(self, name: str, address: str) -> None:
        """Adds a choice of this project.

        Args:
            name: name in configurations.
            address: `module:object`; nothing is imported yet.

        Raises:
            ConfigError: the name is taken.
        """
        if name in self._built_in:
            raise ConfigError(explain(self.noun, name, "is registered already", "choose another name"))
        self._built_in[name] = EntryPoint(name, address, self.group or "")

    def built_in(self) -> tuple[str, ...]:
        """Names of this project's own, in order of registration."""
        return tuple(self._built_in)

    def names(self) -> tuple[str, ...]:
        """All names: this project's own, then those of installed packages in alphabetical order."""
        return (*self._built_in, *sorted({point.name for point in self._brought()} - set(self._built_in)))

    def check(self, name: str, *, built_in: bool = False) -> str:
        """Returns `name` where it can be chosen; imports nothing.

        Args:
            name: name in question.
            built_in: whether only this project's own will do: names that came over the wire.

        Raises:
            ConfigError: an unknown name; the message names the nearest and all.
        """
        if name in self._built_in:
            return name
        known = self.built_in() if built_in else self.names()
        if name in known:
            return name
        import difflib  # noqa: PLC0415 - for this error alone

        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        remedy = f"use {near!r}"
        if self.group and not built_in:
            remedy += f", or install the package that brings this {self.noun}"
        raise ConfigError(explain(self.noun, name, f"must be one of {', '.join(known)}", remedy))

    def find(self, name: str) -> EntryPoint:
        """Where the object is.

        Raises:
            ConfigError: an unknown name; or several objects of that name, of which none is preferred.
        """
        self.check(name)
        found = [point for point in self._brought() if point.name == name]
        if name in self._built_in:
            found.insert(0, self._built_in[name])
        if len(found) > 1:
            where = ", ".join(point.value for point in found)
            constraint = f"is the name of several ({where})"
            raise ConfigError(explain(self.noun, name, constraint, "rename your own, or uninstall one of the packages"))
        return found[0]

    def _brought(self) -> tuple[EntryPoint, ...]:
        return _installed(self.group, tuple(sys.path)) if self.group else ()


@lru_cache(maxsize=8)  # reading what is installed takes milliseconds, and a run asks for its priors in every round
def _installed(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Entry points of the packages on `path`, which is part of the cache's key alone."""
    del path
    return tuple(entry_points(group=group))


T = TypeVar("T", bound=Entry)


class Registry(Generic[T]):
    """The objects behind `Choices`.

    Args:
        choices: names, and where the objects are.
        kind: class that each object is an instance of.
    """

    def __init__(self, choices: Choices, kind: type[T]) -> None:
        self.choices = choices
        self._kind = kind

    def get(self, name: str) -> T:
        """The object called `name`; its module is imported now.

        Raises:
            ConfigError: as `Choices.find`; or an object of a user's own package that cannot be imported, is of another
                class, or calls itself otherwise.
        """
        point = self.choices.find(name)
        noun, remedy = self.choices.noun, f"fix the package that brings {point.value}"
        try:
            entry = point.load()
        except (ImportError, AttributeError) as error:
            raise ConfigError(explain(noun, name, f"cannot be imported ({error})", remedy)) from error
        if not isinstance(entry, self._kind):
            constraint = f"is of class {type(entry).__name__}, must be of {self._kind.__name__}"
            raise ConfigError(explain(noun, name, constraint, remedy))
        if entry.name != name:
            raise ConfigError(explain(noun, name, f"calls itself {entry.name!r}", remedy))
        return entry

    def names(self) -> tuple[str, ...]:
        """As `Choices.names`."""
        return self.choices.names()

    def documented(self) -> Iterator[T]:
        """This project's own objects, in order: what documentation is made from."""
        return (self.get(name) for name in self.choices.built_in())
