# SPDX-License-Identifier: Apache-2.0
"""Which records a silo has ever trained on, and under which population's name: `records.seen`, for the owner alone.

A new name over records that were seen before would be a second budget for the same people. The file holds, for each
population, a keyed hash of each record (or person): HMAC-SHA256 under the silo's `shard.key`, cut to 16 bytes. Without
that key nobody can test whether a record is among them.

    {"format": "fedcpsc records.seen", "version": 1, "key": check of the key}
    {"population": name, "shared_with": {other name: reason}, "records": hex, 32 digits each, ascending}
    {"sha256": of all lines before}

| edge | |
|---|---|
| the same records in another folder, or in another silo | not detectable: each folder has its own key and file |
| a record changed by one pixel, or re-encoded | another record; name persons (`data.persons`) where that happens |
| the file removed by its owner | not detectable here; the ledger in the folder still belongs to its population |
| damaged file, or another key than it was made with | an error: nothing is trained |
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypedDict

from fedcpsc.errors import LedgerError, explain
from fedcpsc.files import write_whole
from fedcpsc.training.sharding import KEY_FILE, read_or_make_key

__all__ = [
    "SEEN_FILE",
    "allow_population",
    "check_never_seen",
    "check_records",
    "note_records",
    "number_seen",
    "records_seen",
]

SEEN_FILE = "records.seen"
_FORMAT, _VERSION = "fedcpsc records.seen", 1
_BYTES = 16


@dataclass(frozen=True)
class _Population:
    """Keyed hashes of its records, and other populations whose records it may share, each with the owner's reason."""

    records: frozenset[bytes] = frozenset()
    shared_with: dict[str, str] = field(default_factory=dict)


def check_records(folder: str | Path, population: str, ids: list[bytes]) -> None:
    """Refuses records that were trained on under another population's name.

    Args:
        folder: the silo's folder.
        population: name under which they are to be trained on.
        ids: id of each record, or of each record's person.

    Raises:
        LedgerError: where some were seen under another name and no recorded reason allows it; or the file is damaged.
    """
    folder = Path(folder)
    if not (folder / SEEN_FILE).exists():
        return
    seen, key = _read(folder), _key(folder)
    hashed = {_hash(key, one) for one in ids}
    allowed = seen.get(population, _Population()).shared_with
    for name, other in sorted(seen.items()):
        common = 0 if name == population or name in allowed else len(hashed & other.records)
        if common:
            why = (
                f"{common} of {len(hashed)} records were trained on as the population {name!r}, whose budget they keep"
            )
            remedy = (
                f"keep the name {name!r}; or name the population anew, on the record:"
                f" fedcpsc ledger population {folder} {population!r} --reason TEXT"
            )
            raise LedgerError(explain("population", population, why, remedy))


def check_never_seen(folder: str | Path, population: str) -> None:
    """Refuses another ledger for a population whose records were trained on in this folder: the first was lost.

    Args:
        folder: the silo's folder.
        population: name of the population.

    Raises:
        LedgerError: where some of its records were seen; or the file is damaged.
    """
    folder = Path(folder)
    seen = records_seen(folder).get(population, 0) if (folder / SEEN_FILE).exists() else 0
    if seen:
        why = f"{SEEN_FILE} lists {seen} records trained on under it, and their ledger is missing"
        remedy = f"restore it: fedcpsc ledger restore {folder} FILE; a population never gets a second budget"
        raise LedgerError(explain("population", population, why, remedy))


def note_records(folder: str | Path, population: str, ids: list[bytes]) -> None:
    """Notes that these records are trained on under the population's name; noting them again changes nothing.

    Args:
        folder: the silo's folder.
        population: name of the population.
        ids: id of each record, or of each record's person.

    Raises:
        LedgerError: where the file is damaged.
    """
    folder = Path(folder)
    seen, key = _read(folder), _key(folder)
    now = seen.get(population, _Population())
    records = now.records | {_hash(key, one) for one in ids}
    if records != now.records or population not in seen:
        _write(folder, key, seen | {population: replace(now, records=records)})


def allow_population(folder: str | Path, population: str, reason: str) -> None:
    """Lets a population hold records that were seen under the names there are now: its owner said why.

    Args:
        folder: the silo's folder.
        population: name of the population.
        reason: the owner's words.

    Raises:
        LedgerError: where the file is damaged.
    """
    folder = Path(folder)
    seen, key = _read(folder), _key(folder)
    now = seen.get(population, _Population())
    others = {name: now.shared_with.get(name, reason) for name in seen if name != population}
    _write(folder, key, seen | {population: replace(now, shared_with=now.shared_with | others)})


def records_seen(folder: str | Path) -> dict[str, int]:
    """How many records were seen under each population's name.

    Raises:
        LedgerError: where the file is damaged.
    """
    return {name: len(one.records) for name, one in _read(Path(folder)).items()}


def number_seen(folder: str | Path, ids: list[bytes]) -> int:
    """How many of these were trained on in this folder, under whatever population's name.

    Args:
        folder: the silo's folder.
        ids: id of each record, or of each record's person.

    Raises:
        LedgerError: where the file is damaged.
    """
    folder = Path(folder)
    if not (folder / SEEN_FILE).exists():
        return 0
    seen, key = _read(folder), _key(folder)
    records = frozenset[bytes]().union(*(one.records for one in seen.values()))
    return sum(_hash(key, one) in records for one in ids)


def _hash(key: bytes, one: bytes) -> bytes:
    return hmac.digest(key, b"record " + one, "sha256")[:_BYTES]


def _key(folder: Path) -> bytes:
    if (folder / SEEN_FILE).exists() and not (folder / KEY_FILE).exists():
        raise _other_key(folder, "is missing")
    return read_or_make_key(folder)


def _check(key: bytes) -> str:
    return hmac.digest(key, b"key of records.seen", "sha256").hex()[: 2 * _BYTES]


def _other_key(folder: Path, how: str) -> LedgerError:
    why = f"{how}: {SEEN_FILE} was made with it"
    return LedgerError(explain(KEY_FILE, str(folder / KEY_FILE), why, "restore the silo's own key from a backup"))


def _read(folder: Path) -> dict[str, _Population]:
    path = folder / SEEN_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise LedgerError(
            explain(SEEN_FILE, str(path), f"cannot be read ({error.strerror})", "make it readable")
        ) from error
    key = _key(folder)
    try:
        lines = content.splitlines(keepends=True)
        head, tail = json.loads(lines[0]), json.loads(lines[-1])
        if head["format"] != _FORMAT or head["version"] != _VERSION:
            raise ValueError(f"format {head['format']!r}, version {head['version']!r}")
        if hashlib.sha256(b"".join(lines[:-1])).hexdigest() != tail["sha256"]:
            raise ValueError("its content is not what was written")
        populations = dict(_population(json.loads(line)) for line in lines[1:-1])
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        why = f"is damaged ({error})"
        remedy = "restore it from a backup of the silo's folder; nothing is trained until then"
        raise LedgerError(explain(SEEN_FILE, str(path), why, remedy)) from error
    if head["key"] != _check(key):
        raise _other_key(folder, "is another key")
    return populations


class _Line(TypedDict):
    """A line of the file, for one population: its hashes run together, in hex."""

    population: str
    shared_with: dict[str, str]
    records: str


def _population(line: _Line) -> tuple[str, _Population]:
    whole = bytes.fromhex(line["records"])
    records = frozenset(whole[start : start + _BYTES] for start in range(0, len(whole), _BYTES))
    return line["population"], _Population(records, dict(line["shared_with"]))


def _write(folder: Path, key: bytes, seen: dict[str, _Population]) -> None:
    path = folder / SEEN_FILE
    lines: list[Mapping[str, object]] = [{"format": _FORMAT, "version": _VERSION, "key": _check(key)}]
    for name, one in sorted(seen.items()):
        records = b"".join(sorted(one.records)).hex()
        lines.append({"population": name, "shared_with": one.shared_with, "records": records})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    text += json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest()}) + "\n"
    try:
        write_whole(path, text, private=True)
    except OSError as error:
        why = f"cannot be written ({error.strerror})"
        raise LedgerError(explain(SEEN_FILE, str(path), why, "make the silo's folder writable")) from error
