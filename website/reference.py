# SPDX-License-Identifier: Apache-2.0
"""The pages of the reference, from the code as it is; nobody writes or commits them."""

from __future__ import annotations

from fedcpsc import cli
from fedcpsc.audit.plan import AuditConfig
from fedcpsc.config import RunConfig
from fedcpsc.gatekeeper.policy import Policy
from fedcpsc.sweep.plan import SweepPlan
from fedcpsc.training.plan import DpSgdTraining, PlainTraining, ShardsTraining
from fedcpsc.white_box.plan import WhiteBoxConfig
from website import commands, fields, python_names

__all__ = ["pages"]

_RUN = """A run's YAML file, `configs/<name>.yaml`: it holds only what differs from the defaults below. An unknown key
is an error that names the nearest valid one. `--set queries.rounds=5` changes the key `rounds` of the section `queries`
for one run."""

_POLICY = """A silo's `policy.yaml`: what its teacher may be asked, how often, and how answers are privatised. Nothing
in a run or on the wire can change it. `fedcpsc policy check SILO_DIR` says what it comes to; [what a silo can
promise](../privacy.md) says why."""

_TRAINING = """`teachers.training` in a run's file: how a silo's teacher is trained. What may then be promised is for
the [policy's mechanism](policy.md)."""

_AUDIT = "The file that `fedcpsc audit` takes: what is attacked and how, fixed before anything is looked at."

_SWEEP = """The file that `fedcpsc sweep` takes: settings and seeds of one run's configuration. [Sweeps](../sweeps.md)
explains it with an example."""

_WHITE_BOX = """The file that `fedcpsc white-box` takes. The defaults are the authors' CIFAR-100 run; `data` is as in a
[run](run.md#data). [The white-box mode](../white_box.md) says what the parts do."""

_PYTHON = """What `import fedcpsc` offers; [From Python](../python_api.md) shows how to use it. Every argument and
attribute is typed. Errors are subclasses of `fedcpsc.FedcpscError`, and say what is wrong and what to do."""

_COMMANDS = """`fedcpsc COMMAND --help` shows the same as this page. Before any command may stand `--debug`, which shows
the traceback of an unexpected error instead of writing it into a file. `fedcpsc --version` shows the version.
Exit codes:"""


def pages() -> dict[str, str]:
    """Markdown by path below the site's `docs/`."""
    trainings = (PlainTraining, DpSgdTraining, ShardsTraining)
    kinds = [part for model in trainings for part in fields.sections(model, "teachers.training", one_of_several=True)]
    exit_codes = (cli.__doc__ or "").partition("Exit codes:")[2]
    return {
        "reference/run.md": fields.reference("Run configuration", _RUN, fields.sections(RunConfig)),
        "reference/training.md": fields.reference("Teacher training", _TRAINING, kinds),
        "reference/policy.md": fields.reference("Policy", _POLICY, fields.sections(Policy)),
        "reference/audit.md": fields.reference("Audit configuration", _AUDIT, fields.sections(AuditConfig)),
        "reference/sweep.md": fields.reference("Sweep's plan", _SWEEP, fields.sections(SweepPlan)),
        "reference/white_box.md": fields.reference(
            "White-box configuration", _WHITE_BOX, fields.sections(WhiteBoxConfig)
        ),
        "reference/python.md": python_names.reference("Python", _PYTHON),
        "reference/commands.md": commands.reference(cli.app, "fedcpsc", _COMMANDS + exit_codes.rstrip()),
    }
