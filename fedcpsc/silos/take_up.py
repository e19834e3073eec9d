# SPDX-License-Identifier: Apache-2.0
"""What a silo that is made takes up from its folder: its owner's policy, and its population's ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fedcpsc.errors import LedgerError, explain
from fedcpsc.gatekeeper.opening import create_ledger
from fedcpsc.gatekeeper.past_ledgers import check_past
from fedcpsc.gatekeeper.policy import POLICY_FILE, Policy, load_policy, mark_path, save_policy
from fedcpsc.ledger.ledger import LEDGER_FILE, Ledger
from fedcpsc.teachers.manifest import Manifest, sha256_hex

__all__ = ["choose_policy", "take_up_ledger", "write_policy"]


def choose_policy(folder: Path, old: Manifest | None, configured: Policy) -> tuple[Policy, bool]:
    """The policy in force, and whether it is the owner's own file rather than the configuration's.

    Args:
        folder: path of the silo's folder.
        old: manifest of the teacher that stands there; None where there is none.
        configured: policy of the run's configuration.

    Raises:
        PolicyError: where the owner's own file cannot be honoured.
    """
    path = folder / POLICY_FILE
    if not path.exists():
        return configured, False
    if old is not None and old.policy_sha256 == sha256_hex(path.read_bytes()):
        return configured, False
    own = load_policy(path)
    return own, own != configured


def write_policy(manifest: Manifest, policy: Policy, folder: Path) -> Manifest:
    """Writes the policy to the folder; returns the manifest that distinguishes it from one that its owner edited."""
    save_policy(policy, folder / POLICY_FILE)
    return manifest.model_copy(update={"policy_sha256": sha256_hex((folder / POLICY_FILE).read_bytes())})


def take_up_ledger(
    folder: Path, population: str, unit: Literal["record", "person"], policy: Policy, old: Manifest | None
) -> Ledger:
    """The ledger of a silo's population, open: the one that lies there, or a new one in a new folder.

    Records may come and go: the ledger stays. None is ever set aside or begun afresh.

    Args:
        folder: path of the silo's folder.
        population: name of the population that the configuration gives.
        unit: what one guarantee protects, as the silo's data have it.
        policy: policy in force.
        old: manifest of the teacher that stands there; None where there is none.

    Raises:
        LedgerError: where the ledger is missing beside a teacher, damaged, of another population or unit, or where one
            in `past/` is not counted in it.
    """
    path = folder / LEDGER_FILE
    if old is not None and old.population != population:
        constraint = f"{folder} holds the silo of the population {old.population!r}, whose budget is kept there"
        remedy = (
            f"configure that name; or rename it, on the record: fedcpsc ledger population {folder} {population}"
            " --reason ...; or choose another silos.root"
        )
        raise LedgerError(explain("silos.population", population, constraint, remedy))
    if old is None and not path.exists():
        return create_ledger(folder, population, policy, unit)
    ledger = Ledger.open(path, population, high_water_mark=mark_path(folder, policy))
    if (found := ledger.status().unit) != unit:
        ledger.close()
        constraint = f"the ledger {path} counts what each {found} loses, and units cannot be mixed in one ledger"
        remedy = "name persons in data.persons as before; or make the silo of another population in another silos.root"
        raise LedgerError(explain("unit", unit, constraint, remedy))
    try:
        check_past(folder, population, ledger)
    except LedgerError:
        ledger.close()
        raise
    return ledger
