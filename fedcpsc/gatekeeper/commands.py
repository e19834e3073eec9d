"""The owner's commands, as typer apps for the command line to mount: `gatekeeper`, `ledger`, `policy`, `epsilon`."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import typer

from fedcpsc.errors import ConfigError, FedcpscError, explain
from fedcpsc.gatekeeper.budget import MU2_UNIT
from fedcpsc.gatekeeper.ledger import LEDGER_FILE, Ledger, Status
from fedcpsc.gatekeeper.manifest import load_manifest
from fedcpsc.gatekeeper.policy import POLICY_FILE, load_policy
from fedcpsc.gatekeeper.proof import histories_of
from fedcpsc.logs import configure, form_of

__all__ = ["epsilon_of", "gatekeeper_app", "ledger_app", "ledger_facts", "mount", "policy_app"]

_ALIKE_A_MINUTE = 60  # lines of the gatekeeper's log with one sentence

SiloDir = Annotated[Path, typer.Argument(help="The silo's folder.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Plain JSON instead of words.")]

gatekeeper_app = typer.Typer(
    help="The silo's own process: the only thing that touches its teacher.", no_args_is_help=True
)
ledger_app = typer.Typer(help="The silo's durable record of every charge and reply.", no_args_is_help=True)
policy_app = typer.Typer(help="What a server may ask of the silo.", no_args_is_help=True)


def mount(app: typer.Typer) -> None:
    """Adds the owner's commands to a command line."""
    app.add_typer(gatekeeper_app, name="gatekeeper")
    app.add_typer(ledger_app, name="ledger")
    app.add_typer(policy_app, name="policy")
    app.command("epsilon")(epsilon)


@gatekeeper_app.command("serve")
def serve(
    silo_dir: SiloDir,
    socket: Annotated[Path, typer.Option(help="Path of the Unix-domain socket to listen on.")],
    group: Annotated[str | None, typer.Option(help="Group whose members may connect too (mode 0660).")] = None,
    metrics: Annotated[
        str | None,
        typer.Option(help="Show counters to Prometheus there: 127.0.0.1:PORT, or the path of a second socket."),
    ] = None,
    metrics_group: Annotated[str | None, typer.Option(help="Group whose members may read that socket too.")] = None,
    log_format: Annotated[
        str | None, typer.Option(help="text, or json for one object a line; where left out, $FEDCPSC_LOG says.")
    ] = None,
) -> None:
    """Serve the silo's teacher until told to stop.

    Example: [bold]fedcpsc gatekeeper serve /srv/silo --socket /run/fedcpsc/silo.sock --group flower[/]
    """
    with _told():
        from fedcpsc.gatekeeper.service import serve as run  # noqa: PLC0415 - brings the web server

        configure(form_of(log_format), alike_a_minute=_ALIKE_A_MINUTE)
        run(silo_dir, socket, group=group, metrics=metrics, metrics_group=metrics_group)


@ledger_app.command("init")
def init(silo_dir: SiloDir) -> None:
    """Begin the ledger of new private data, with the budget of its policy. Never replaces one.

    Example: [bold]fedcpsc ledger init /srv/silo[/]
    """
    with _told():
        from fedcpsc.gatekeeper.gatekeeper import begin_ledger  # noqa: PLC0415

        begin_ledger(silo_dir).close()
        typer.echo(f"begun: {silo_dir / LEDGER_FILE}")


@ledger_app.command("show")
def show(
    silo_dir: SiloDir,
    as_json: Json = False,
    owner: Annotated[
        bool, typer.Option("--owner", help="Also what gnmax lost on the real votes: itself private, show nobody.")
    ] = False,
) -> None:
    """What was spent, and what is left.

    Example: [bold]fedcpsc ledger show /srv/silo --json[/]
    """
    with _told(), _ledger(silo_dir) as ledger:
        facts = ledger_facts(ledger)
        if owner:
            from fedcpsc.gatekeeper.owner_account import OWNER_FILE, OwnerAccount  # noqa: PLC0415 - brings scipy

            facts["epsilon_realised_private"] = OwnerAccount(silo_dir / OWNER_FILE).epsilon(facts["delta"])
        _say(facts, as_json)


@ledger_app.command("verify")
def verify(silo_dir: SiloDir, as_json: Json = False) -> None:
    """Check every row, every stored reply and the high-water mark; exit 1 at the first fault.

    Example: [bold]fedcpsc ledger verify /srv/silo[/]
    """
    with _told(), _ledger(silo_dir) as ledger:
        status = ledger.verify()
        _say({"sound": True, "events": status.events, "head": status.head}, as_json)


@ledger_app.command("export")
def export(silo_dir: SiloDir) -> None:
    """Every row as a line of JSON, oldest first; replies by their hash alone.

    Example: [bold]fedcpsc ledger export /srv/silo > ledger.jsonl[/]
    """
    with _told(), _ledger(silo_dir) as ledger:
        for row in ledger.export():
            typer.echo(json.dumps(row))


@ledger_app.command("raise")
def raise_(
    silo_dir: SiloDir,
    answers: Annotated[int | None, typer.Option(help="New cap on images answered.")] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="New cap on epsilon of noisy answers, at the ledger's delta.")
    ] = None,
    note: Annotated[str, typer.Option(help="Why, for the record.")] = "",
) -> None:
    """Raise the budget: a row that stays. Only the owner of the ledger's file can.

    Example: [bold]fedcpsc ledger raise /srv/silo --answers 40000 --note "board of 3 May"[/]
    """
    with _told(), _ledger(silo_dir) as ledger:
        if answers is None and epsilon is None:
            raise ConfigError(explain("--answers, --epsilon", None, "nothing to raise", "give one of them"))
        from fedcpsc.privacy.accounting import gaussian_mu  # noqa: PLC0415 - brings scipy

        delta = ledger.status().delta
        mu2 = None if epsilon is None else int(gaussian_mu(epsilon, delta) ** 2 * MU2_UNIT)
        ledger.raise_budget(answers=answers, mu2=mu2, note=note)
        _say(ledger_facts(ledger), False)


@ledger_app.command("mark")
def mark(silo_dir: SiloDir) -> None:
    """Begin the high-water mark that the policy names, at the ledger's newest row.

    Example: [bold]fedcpsc ledger mark /srv/silo[/]
    """
    with _told(), _ledger(silo_dir, new_mark=True) as ledger:
        typer.echo(f"marked at row {ledger.status().events}")


@policy_app.command("check")
def check(silo_dir: SiloDir, as_json: Json = False) -> None:
    """Say in plain words what a server can learn at most under the silo's policy.

    Example: [bold]fedcpsc policy check /srv/silo[/]
    """
    with _told():
        from fedcpsc.gatekeeper.policy_check import check_policy  # noqa: PLC0415 - brings scipy

        report = check_policy(silo_dir)
        if as_json:
            _say(report.as_json(), True)
            return
        for sentence in report.learns:
            typer.echo(sentence)
        for warning in report.warnings:
            typer.echo(f"warning: {warning}")


def epsilon(
    sensitivity: Annotated[float, typer.Option(help="L2 sensitivity of one answer.")],
    sigma: Annotated[float, typer.Option(help="Standard deviation of the Gaussian noise, in the same units.")],
    delta: Annotated[float, typer.Option(help="delta of the guarantee.")] = 1e-5,
    answers: Annotated[int | None, typer.Option(help="How many answers.")] = None,
    within: Annotated[
        float | None, typer.Option("--epsilon", help="Instead of --answers: how many does this buy?")
    ] = None,
    as_json: Json = False,
) -> None:
    """Exact epsilon of Gaussian answers, or how many answers an epsilon buys. Never any subsampling amplification.

    Example: [bold]fedcpsc epsilon --sensitivity 1.4142135623730951 --sigma 10 --answers 1000 --delta 1e-5[/]
    """
    with _told():
        _say(epsilon_of(sensitivity, sigma, delta, answers=answers, epsilon=within), as_json)


def epsilon_of(
    sensitivity: float, sigma: float, delta: float, *, answers: int | None = None, epsilon: float | None = None
) -> dict[str, Any]:
    """What the command `epsilon` prints: exactly one of `answers` and `epsilon` is given, the other is found.

    Args:
        sensitivity: L2, > 0.
        sigma: > 0, in the same units.
        delta: in (0, 1).
        answers: >= 1.
        epsilon: > 0.

    Raises:
        FedcpscError: where a value is out of range, or not exactly one is given.
    """
    from fedcpsc.privacy.accounting import gaussian_epsilon, max_answers  # noqa: PLC0415 - brings scipy

    if (answers is None) == (epsilon is None):
        raise ConfigError(explain("--answers, --epsilon", (answers, epsilon), "give exactly one of them", "see --help"))
    for name, value in (("--sensitivity", sensitivity), ("--sigma", sigma), ("--answers", answers)):
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(explain(name, value, "must be > 0 and finite", "give a positive number"))
    each = (Fraction(repr(float(sensitivity))) / Fraction(repr(float(sigma)))) ** 2
    if answers is None:
        answers = max_answers(each, float(epsilon or 0), delta)
    mu = math.sqrt(each * answers)
    reached = gaussian_epsilon(mu, delta) if mu > 0 else 0.0
    facts = {"epsilon": reached, "delta": delta, "mu": mu, "answers": answers}
    return {**facts, "sensitivity": sensitivity, "sigma": sigma}


def ledger_facts(ledger: Ledger) -> dict[str, Any]:
    """What the command `ledger show` prints."""
    status = ledger.status()
    return {
        "dataset_id": status.dataset_id,
        "unit": status.unit,
        "relation": status.relation,
        "delta": status.delta,
        "answers": {"budget": status.budget.answers, "spent": status.spent.answers, "left": status.left.answers},
        "mu2": {name: getattr(status, name).mu2 / MU2_UNIT for name in ("budget", "spent", "left")},
        "epsilon_spent": _spent(status, ledger),
        "answers_without_guarantee": status.unprotected,
        "queries": status.queries,
        "refused": status.refused,
        "events": status.events,
        "head": status.head,
    }


def _spent(status: Status, ledger: Ledger) -> float | None:
    """epsilon of all that has left so far; None where some of it had no guarantee."""
    releases = ledger.releases()
    if status.unprotected or any(not row["private"] for row in releases):
        return None
    from fedcpsc.privacy.accounting import compose  # noqa: PLC0415 - brings scipy

    return compose(status.spent.mu2 / MU2_UNIT, status.delta, list(histories_of(releases).values()))


@contextlib.contextmanager
def _ledger(silo_dir: Path, new_mark: bool = False) -> Iterator[Ledger]:
    policy = load_policy(silo_dir / POLICY_FILE)
    population = load_manifest(silo_dir).population
    with contextlib.closing(
        Ledger.open(silo_dir / LEDGER_FILE, population, high_water_mark=policy.high_water_mark, new_mark=new_mark)
    ) as ledger:
        yield ledger


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Errors as words for people, and an exit code: 2 where the command line is wrong, 1 otherwise."""
    try:
        yield
    except FedcpscError as error:
        typer.echo(f"{type(error).__name__.removesuffix('Error').lower()} error: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, ConfigError) else 1) from error


def _say(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        shown = ", ".join(f"{key} {part}" for key, part in value.items()) if isinstance(value, dict) else value
        typer.echo(f"{name}: {shown}")
