# SPDX-License-Identifier: Apache-2.0
"""The methods that are compared, and what each needs that the others do not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.peers.dense import averaged, dense
from benchmarks.peers.dfme import dfme
from benchmarks.peers.feddf import feddf
from benchmarks.peers.fits import fitted_to_answers
from benchmarks.peers.ideal import ideal
from benchmarks.peers.silos import CountedSilos
from benchmarks.peers.task import Task
from benchmarks.peers.worlds import World
from fedcpsc.distillation.evaluate import accuracy, predicted_classes
from fedcpsc.models.classifier import Classifier

__all__ = ["FEDAVG", "OURS", "PEERS", "REFERENCES", "Peer", "measured", "names_of"]

OURS, FEDAVG = "fedcpsc", "FedAvg, one shot"
REFERENCES = ("best teacher", "ensemble, mean logits", "ensemble, class counts")  # they call nobody
_TOGETHER = 500


@dataclass(frozen=True)
class Peer:
    """A published method.

    Attributes:
        name: name in the table.
        teach: function that makes the student, until the silos' budget is spent.
        published: calls of each silo in the paper's own runs, or the nearest that is possible here.
        public: name of the folder of public pictures that the server has; None: it has none.
        fits_answers: whether what it asked is fitted anew by fedcpsc's own targets and final fit.
    """

    name: str
    teach: Callable[[CountedSilos, Task], Classifier]
    published: int
    public: str | None = None
    fits_answers: bool = True


PEERS = (
    Peer("DENSE", dense, 768_000),
    Peer("FedDF, MNIST pictures", feddf, 45_000, "mnist", fits_answers=False),
    Peer("FedDF, CIFAR-10 pictures", feddf, 45_000, "cifar10", fits_answers=False),
    Peer("IDEAL", ideal, 25_000),
    Peer("DFME", dfme, 2_000_000),
)


def names_of(calls: int) -> list[str]:
    """Names of all methods at a number of calls; 0: of those that call nobody."""
    return [*REFERENCES, FEDAVG] if calls == 0 else [OURS, *(peer.name for peer in PEERS)]


def measured(world: World, method: str, calls: int, *, fit_answers: bool = True) -> dict[str, float]:
    """Figures of one method in one world: `own` in percent of its student, and of a peer `fitted` and `calls`.

    Args:
        calls: images that each silo may be asked.
        fit_answers: whether what a peer asked is fitted anew.

    Raises:
        PeerError: the method needs what the world does not give.
    """
    if method in REFERENCES:
        return {"own": world.sum_of_answers()[method]}
    if method == OURS:
        return {"own": world.fedcpsc(calls), "calls": calls}
    if method == FEDAVG:
        networks = copy.deepcopy(CountedSilos(world.silos).networks(method))
        return {"own": reached(world, averaged(networks, [sum(silo.class_counts) for silo in world.silos]))}
    peer = next(peer for peer in PEERS if peer.name == method)
    silos, task = CountedSilos(world.silos, calls), world.task(peer.public, calls)
    found = {"own": reached(world, peer.teach(silos, task)), "calls": silos.calls}
    if fit_answers and peer.fits_answers:
        found["fitted"] = reached(world, fitted_to_answers(silos, task))
    return found


def reached(world: World, student: Classifier) -> float:
    """Accuracy on the validation images, in percent."""
    return 100 * accuracy(predicted_classes(student, world.evaluation, _TOGETHER), world.evaluation)
