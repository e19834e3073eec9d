# SPDX-License-Identifier: Apache-2.0
"""The owner's commands, for the command line to mount: `adopt`, `gatekeeper`, `ledger`, `policy`, `epsilon`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, TypedDict

import typer

from fedcpsc.commands import population_commands  # noqa: F401 - adds its commands to `ledger`
from fedcpsc.commands.adopt_command import adopt
from fedcpsc.commands.ledger_commands import ledger_app
from fedcpsc.commands.owner_words import Json, SiloDir, explain_errors, say
from fedcpsc.errors import ConfigError, explain

__all__ = ["EpsilonFacts", "epsilon_of", "gatekeeper_app", "mount", "policy_app"]

_ALIKE_A_MINUTE = 60  # lines of the gatekeeper's log with one sentence

gatekeeper_app = typer.Typer(
    help="The silo's own process: the only thing that touches its teacher.",
    no_args_is_help=True,
    suggest_commands=False,
)
policy_app = typer.Typer(help="What a server may ask of the silo.", no_args_is_help=True, suggest_commands=False)


class EpsilonFacts(TypedDict):
    """What Gaussian answers come to.

    Attributes:
        epsilon, delta: guarantee of all answers together.
        mu: parameter of their Gaussian differential privacy.
        answers: number of answers.
        sensitivity: L2 sensitivity of one answer.
        sigma: standard deviation of the noise, in the same units.
    """

    epsilon: float
    delta: float
    mu: float
    answers: int
    sensitivity: float
    sigma: float


def mount(app: typer.Typer) -> None:
    """Adds the owner's commands to a command line."""
    app.add_typer(gatekeeper_app, name="gatekeeper")
    app.add_typer(ledger_app, name="ledger")
    app.add_typer(policy_app, name="policy")
    app.command("adopt")(adopt)
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
        str | None,
        typer.Option(
            help="text: for people; json: one object a line, for programs. Where left out, $FEDCPSC_LOG says."
        ),
    ] = None,
) -> None:
    """Try the silo's teacher on invented images, then serve it until stopped.

    Example: [bold]fedcpsc gatekeeper serve /srv/silo --socket /run/fedcpsc/silo.sock --group flower[/]
    """
    with explain_errors():
        from fedcpsc.gatekeeper.service import serve as run
        from fedcpsc.logs import configure, form_of

        configure(form_of(log_format), alike_a_minute=_ALIKE_A_MINUTE)
        run(silo_dir, socket, group=group, metrics=metrics, metrics_group=metrics_group)


@policy_app.command("check")
def check(silo_dir: SiloDir, as_json: Json = False) -> None:
    """Say in plain words what a server can learn at most under the silo's policy, and try the teacher, uncharged.

    Example: [bold]fedcpsc policy check /srv/silo[/]
    """
    with explain_errors():
        from fedcpsc.gatekeeper.policy_check import check_policy

        report = check_policy(silo_dir, tried=True)
        if as_json:
            say(report.as_json(), True)
            return
        for sentence in (report.shown, *report.learns):
            typer.echo(sentence)
        typer.echo(f"The teacher was tried on invented images: {report.trial}.")
        for warning in report.warnings:
            typer.echo(f"warning: {warning}")


def epsilon(
    sensitivity: Annotated[float, typer.Option(help="L2 sensitivity of one answer.")],
    sigma: Annotated[float, typer.Option(help="Standard deviation of the Gaussian noise, in the same units.")],
    delta: Annotated[float, typer.Option(help="Delta of the guarantee, in (0, 1).")] = 1e-5,
    answers: Annotated[int | None, typer.Option(help="Number of answers, >= 1.")] = None,
    within: Annotated[
        float | None,
        typer.Option("--epsilon", help="Epsilon to spend, instead of --answers: shows how many answers it buys."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Exact epsilon of Gaussian answers, or how many answers an epsilon buys. Never any subsampling amplification.

    Example: [bold]fedcpsc epsilon --sensitivity 1.4142135623730951 --sigma 10 --answers 1000 --delta 1e-5[/]
    """
    with explain_errors():
        say(epsilon_of(sensitivity, sigma, delta, answers=answers, epsilon=within), as_json)


def epsilon_of(
    sensitivity: float, sigma: float, delta: float, *, answers: int | None = None, epsilon: float | None = None
) -> EpsilonFacts:
    """What the command `epsilon` prints: exactly one of `answers` and `epsilon` is given, the other is found.

    Args:
        sensitivity: L2 sensitivity of one answer, > 0.
        sigma: standard deviation of the noise, > 0, in the same units.
        delta: delta of the guarantee, in (0, 1).
        answers: number of answers, >= 1; None to find it.
        epsilon: epsilon of all answers together, > 0; None to find it.

    Raises:
        FedcpscError: where a value is out of range, or not exactly one is given.
    """
    from fractions import Fraction

    from fedcpsc.privacy.accounting import gaussian_epsilon, max_answers

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
    return {
        "epsilon": reached,
        "delta": delta,
        "mu": mu,
        "answers": answers,
        "sensitivity": sensitivity,
        "sigma": sigma,
    }
