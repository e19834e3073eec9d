# SPDX-License-Identifier: Apache-2.0
"""The project's packages, their layers and who imports whom: from the code, as it is."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedcpsc.errors import explain

__all__ = ["Packages", "read_packages"]

ROOT = Path(__file__).resolve().parent.parent
_LIBRARY = "fedcpsc"
_TOP = "cli"  # the one module among the packages
_LONGEST = 62  # characters of a caption
_MOST = 5  # packages in a layer: the picture's width has room for them and for arrows that pass between


@dataclass(frozen=True)
class Packages:
    """The packages by layer, and the imports that the picture draws.

    Attributes:
        layers: names of packages, the uppermost layer first; each imports from layers below its own alone.
        base: names of the modules below all packages, on which everything may stand.
        imports: packages that each package imports, without those it reaches through another one that it imports.
        captions: caption of each package, from its docstring.
    """

    layers: tuple[tuple[str, ...], ...]
    base: tuple[str, ...]
    imports: Mapping[str, tuple[str, ...]]
    captions: Mapping[str, str]


def read_packages(root: Path = ROOT) -> Packages:
    """Reads which packages there are from the contracts in pyproject.toml, and the imports from every source file.

    Args:
        root: folder of the project.

    Raises:
        ValueError: packages import each other in a circle.
    """
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    contract = next(one for one in settings["contracts"] if one["type"] == "layers")
    listed = [_short(name) for line in contract["layers"] for name in line.split(" | ")]
    base = tuple(name for name in listed if not _folder(root, name) and name != _TOP)
    names = set(listed) - set(base)
    found = {name: _imports(root, name, names) for name in sorted(names)}
    return Packages(
        _layers(found),
        base,
        {name: _without_detours(name, found) for name in found},
        {name: _caption(_file(root, name)) for name in names},
    )


def _layers(imports: Mapping[str, set[str]]) -> tuple[tuple[str, ...], ...]:
    """Each package in the lowest layer that is above all it imports and has room, those first on which most stand.

    Raises:
        ValueError: packages import each other in a circle.
    """
    layers: list[tuple[str, ...]] = []
    left = dict(imports)
    users = {name: sum(name in _below(other, imports) for other in imports) for name in imports}
    while left:
        ready = [name for name, targets in left.items() if not targets & set(left)]
        if not ready:
            raise ValueError(explain("packages", sorted(left), "import each other in a circle", "break it"))
        layer = tuple(sorted(sorted(ready, key=lambda name: (-users[name], name))[:_MOST]))
        layers.append(layer)
        left = {name: targets for name, targets in left.items() if name not in layer}
    return tuple(reversed(layers))


def _short(name: str) -> str:
    return name.strip().removeprefix(f"{_LIBRARY}.")


def _folder(root: Path, name: str) -> Path | None:
    places = (root / _LIBRARY / name, root / name)
    return next((place for place in places if (place / "__init__.py").exists()), None)


def _file(root: Path, name: str) -> Path:
    folder = _folder(root, name)
    return folder / "__init__.py" if folder else root / _LIBRARY / f"{name}.py"


def _imports(root: Path, name: str, names: set[str]) -> set[str]:
    """Every import counts, those inside functions too."""
    folder = _folder(root, name)
    files = sorted(folder.rglob("*.py")) if folder else [_file(root, name)]
    found = {target for file in files for target in _targets(ast.parse(file.read_text(encoding="utf-8")))}
    return (found & names) - {name}


def _targets(tree: ast.AST) -> Iterable[str]:
    for node in ast.walk(tree):
        modules = []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        for module in modules:
            first, _, rest = module.partition(".")
            yield rest.partition(".")[0] if first == _LIBRARY else first


def _without_detours(name: str, imports: Mapping[str, set[str]]) -> tuple[str, ...]:
    direct = imports[name]
    detours = {far for near in direct for far in _below(near, imports)}
    return tuple(sorted(direct - detours))


def _below(name: str, imports: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    to_see = list(imports[name])
    while to_see:
        one = to_see.pop()
        if one not in found:
            found.add(one)
            to_see += imports[one]
    return found


def _caption(file: Path) -> str:
    """The first clauses of a docstring's first line, as many as are short."""
    line = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]
    line = re.sub(r" \(.*?\)", "", line).partition(";")[0].rstrip(".")
    while len(line) > _LONGEST and re.search(r"[,:]", line):
        line = re.sub(r"[,:][^,:]*$", "", line)
    return line
