# SPDX-License-Identifier: Apache-2.0
"""kill -9 at random moments: of the ServerApp, a SuperNode, a gatekeeper, the SuperLink, in deployments on loopback.

    python -m benchmarks.crashes --kills 25 --workers 3 --folder /tmp/crashes

One kill a run, at a moment drawn from the seed; half of a gatekeeper's and of the ServerApp's kills wait for the next
write to its ledger or to its bank, and come within milliseconds of it. What died is started again as `fedcpsc deploy
local` does it (and systemd: after 5 s, a SuperNode after 70 s); where Flower ends the run, it is resumed. Then the
ledgers are compared with the answer bank. A line for each kill goes into `kills.jsonl` in the folder, and a later
call goes on from there; `--out` sums the lines up. Long: a kill takes about a minute and a half.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from benchmarks.record import provenance
from fedcpsc.app_config import AppConfig
from fedcpsc.commands.run_command import Request, make_teachers
from fedcpsc.errors import FedcpscError
from fedcpsc.launch.app_folder import CONFIG_IN_APP, stage_app
from fedcpsc.launch.deployment.federation import Federation, federation
from fedcpsc.launch.deployment.layout import claimed
from fedcpsc.launch.deployment.supervisor import MARK
from fedcpsc.launch.processes import marked
from fedcpsc.launch.submitted import submit_and_wait
from fedcpsc.ledger.ledger import LEDGER_FILE, Ledger
from fedcpsc.provenance import commit
from fedcpsc.runs.bank_journal import replay
from fedcpsc.runs.layout import BANK_FOLDER, JOURNAL_FILE, METRICS_FILE, RESULT_FILE, STUDENT_FILE
from fedcpsc.teachers.manifest import load_manifest

KINDS = ("ServerApp", "SuperNode", "gatekeeper", "SuperLink")
CONFIG = Path("configs/smoke.yaml")
SMALL = (
    "queries.answers_per_silo=120",
    "queries.rounds=4",
    "queries.deadline_s=300",
    "queries.hello_timeout_s=300",
    "synthesis.steps=2",
    "student.steps_per_round=20",
    "student.final_steps=100",
    "evaluation.every=4",
)
SILOS, ANSWERS = 2, 120
LINES = "kills.jsonl"
_MOST_ATTEMPTS = 8
_AROUND_S = 6.0  # of submitting a run and asking how it ended


@dataclass(frozen=True)
class Draw:
    """One kill, as the seed has it.

    Attributes:
        number: of the kill, from 0.
        kind: of `KINDS`.
        silo: whose, where it is a silo's process.
        moment: share of a run's usual seconds after which it comes, in [0, 1).
        aimed: wait for the next write to the process's own record, and then `delay_s`.
        delay_s: after that write.
    """

    number: int
    kind: str
    silo: int
    moment: float
    aimed: bool
    delay_s: float

    @classmethod
    def of(cls, seed: int, number: int) -> Draw:
        """The kinds take turns."""
        chance = random.Random(f"{seed}/{number}")  # noqa: S311 - not for secrets
        kind = KINDS[number % len(KINDS)]
        aimed = kind in ("ServerApp", "gatekeeper") and number // len(KINDS) % 2 == 1
        return cls(number, kind, chance.randrange(SILOS), chance.random(), aimed, chance.uniform(0, 0.02))


class Field:
    """A federation that is up, and its silos' ledgers."""

    def __init__(self, made: Federation, silos: Path, seed: int) -> None:
        self.made = made
        self.silos = silos
        self.seed = seed
        self.usual_s = 0.0

    def kill_once(self, draw: Draw) -> dict[str, Any]:
        """A run with one kill in it, until it has ended and all is up again; what came of it."""
        moment = draw.moment
        for again in range(6):
            name = f"kill-{draw.number:03d}" + (f"-{again}" if again else "")
            victim = Victim(self.made, self.silos, draw, self.made.layout.runs / name, moment * self.usual_s)
            begun = time.monotonic()
            attempts, ends = self.run(name, victim)
            if victim.killed_at is not None:
                break
            self.usual_s = time.monotonic() - begun - _AROUND_S  # it was over before its moment came
            moment *= 0.9
        else:
            raise RuntimeError(f"kill {draw.number} never came in time")
        line = asdict(draw) | {"seed": self.seed, "run": name, "attempts": attempts, "ends": ends} | victim.facts()
        line["run_s"] = round(time.monotonic() - begun, 1)
        line["silos"] = [self.compare(name, silo) for silo in range(SILOS)]
        run_dir = self.made.layout.runs / name
        line["student"] = (run_dir / STUDENT_FILE).exists()
        line["ended"] = (run_dir / RESULT_FILE).exists()
        line["commit"] = commit()
        if draw.kind != "ServerApp":
            self.until_all_are_up()
        return line

    def run(self, name: str, victim: Victim | None = None) -> tuple[int, list[str]]:
        """The run, resumed until it has ended; how many attempts that took, and what ended those that failed."""
        ends: list[str] = []
        run_dir = self.made.layout.runs / name
        watching = threading.Thread(target=victim.watch) if victim else None
        if watching:
            watching.start()
        try:
            for attempt in range(1, _MOST_ATTEMPTS + 1):
                overrides = AppConfig.join_overrides([*SMALL, f"silos.count={SILOS}", f"output.name={name}"])
                given = AppConfig(CONFIG_IN_APP, overrides, str(run_dir), resume=attempt > 1)
                file = self.made.layout.folder / "this-run.toml"
                file.write_text(given.to_toml(), encoding="utf-8")
                try:
                    submit_and_wait(self.made.flower, self.made.layout.app, file, run_dir, bool, patience_s=300.0)
                    return attempt, ends
                except FedcpscError as error:
                    ends.append(str(error)[:300])
                    time.sleep(5.0)
            return _MOST_ATTEMPTS, ends
        finally:
            if victim and watching:
                victim.over.set()
                watching.join()

    def until_all_are_up(self) -> None:
        """As long as it takes: whatever was killed is started again by the supervisor."""
        deadline = time.monotonic() + 400
        while True:
            up = all(status.ready for status in self.made.supervisor.statuses())
            try:
                if up and set(self.made.flower.nodes().values()) == {"online"}:
                    return
            except FedcpscError:
                pass  # the SuperLink is not there yet
            if time.monotonic() > deadline:
                raise RuntimeError(f"not up again: {self.made.supervisor.statuses()}")
            time.sleep(2.0)

    def compare(self, name: str, silo: int) -> dict[str, Any]:
        """What the silo's ledger charged the run, beside what the run's bank holds of it."""
        folder = self.silos / str(silo)
        manifest = load_manifest(folder)
        ledger = Ledger.open(folder / LEDGER_FILE, manifest.population)
        try:
            ledger.verify()
            rows = [row for row in ledger.export() if row["kind"] == "charged" and row["run"] == name]
        finally:
            ledger.close()
        journal = self.made.layout.runs / name / BANK_FOLDER / JOURNAL_FILE
        _, batches = replay(journal, journal.read_bytes())
        banked = {batch.query_id: batch.count for batch in batches if manifest.silo in batch.answered}
        times = Counter(row["query_id"] for row in rows)
        return {
            "silo": manifest.silo,
            "charged": sum(row["answers"] for row in rows),
            "banked": sum(banked.values()),
            "paid_twice": sum(row["answers"] for row in rows if times[row["query_id"]] > 1)
            - sum({row["query_id"]: row["answers"] for row in rows if times[row["query_id"]] > 1}.values()),
            "lost": sum(row["answers"] for row in rows if row["query_id"] not in banked),
            "unpaid": sum(count for query, count in banked.items() if query not in times),
            "ledger_verifies": True,  # else it would have raised
        }


class Victim:
    """The process that is killed once, at its moment of the run; `watch` runs in a thread of its own."""

    def __init__(self, made: Federation, silos: Path, draw: Draw, run_dir: Path, after_s: float) -> None:
        self.over = threading.Event()
        self.killed_at: float | None = None
        self._made, self._draw, self._run_dir, self._after_s = made, draw, run_dir, after_s
        self._silo = silos / str(draw.silo)
        self._phase = ""

    def facts(self) -> dict[str, Any]:
        """When it happened, in seconds since Flower took the run, and where the run was then."""
        assert self.killed_at is not None
        return {"killed_s": round(self.killed_at, 2), "phase": self._phase}

    def watch(self) -> None:
        """Waits for the moment, and kills."""
        submitted = self._run_dir / "flower.log"
        if not self._until(submitted.exists):
            return
        begun = time.monotonic()
        if self.over.wait(self._after_s) or not self._until(lambda: self._process() is not None):
            return
        if self._draw.aimed:
            self._until_written()
        process = self._process()
        if process is None or self.over.is_set():
            return
        self._phase = phase(self._run_dir)
        process.kill()
        self.killed_at = time.monotonic() - begun

    def _until(self, happened: Callable[[], bool]) -> bool:
        while not happened():
            if self.over.wait(0.05):
                return False
        return True

    def _until_written(self) -> None:
        journal = self._run_dir / BANK_FOLDER / JOURNAL_FILE
        record = journal if self._draw.kind == "ServerApp" else self._silo / LEDGER_FILE
        files = [record, record.with_name(record.name + "-journal")]

        def state() -> list[tuple[int, int]]:
            return [(found.st_size, found.st_mtime_ns) for file in files if file.exists() for found in [file.stat()]]

        before = state()
        while state() == before and not self.over.is_set():
            time.sleep(0.001)
        time.sleep(self._draw.delay_s)

    def _process(self) -> psutil.Process | None:
        if self._draw.kind == "ServerApp":
            mark = self._made.flower.environment[MARK]
            return next((process for process in marked(MARK, mark) if is_server_app(process)), None)
        name = self._draw.kind if self._draw.kind == "SuperLink" else f"{self._draw.kind} {self._draw.silo}"
        status = next(one for one in self._made.supervisor.statuses() if one.member.name == name)
        return psutil.Process(status.pid) if status.exit_code is None else None


def is_server_app(process: psutil.Process) -> bool:
    """Whether it is the process of a ServerApp."""
    try:
        return any(Path(word).name == "flwr-serverapp" for word in process.cmdline()[:2])
    except psutil.Error:
        return False


def phase(run_dir: Path) -> str:
    """Where a run is."""
    journal = run_dir / BANK_FOLDER / JOURNAL_FILE
    if not journal.exists():
        return "before the silos joined"
    if (run_dir / RESULT_FILE).exists():
        return "leaving the result"
    metrics = (run_dir / METRICS_FILE).read_text(encoding="utf-8").splitlines()
    if not metrics:
        return "round 1"
    last = json.loads(metrics[-1])
    return "final fit" if last["phase"] == "final" or last["round"] == last["rounds"] else f"round {last['round'] + 1}"


def work(given: argparse.Namespace, numbers: list[int], number: int) -> None:
    """One worker: its own federation, its own silos; a line a kill."""
    folder = Path(given.folder) / f"worker-{number}"
    folder.mkdir(parents=True, exist_ok=True)
    overrides = (*SMALL, f"silos.count={SILOS}", f"silos.root={folder / 'silos'}", "teachers.epochs=2")
    request = Request(CONFIG, overrides)
    config = request.load()
    with claimed(folder / "deployment") as layout, ExitStack() as stack:
        stage_app(layout.app, CONFIG)
        silos = make_teachers(config, Console(stderr=True))
        made = stack.enter_context(federation(layout, [silos / str(silo) for silo in range(SILOS)]))
        stack.enter_context(made.supervisor.supervise())
        field = Field(made, silos, given.seed)
        begun = time.monotonic()
        attempts, ends = field.run(f"unharmed-{int(time.time())}")
        if attempts > 1:
            raise RuntimeError(f"a run that nobody disturbed failed: {ends}")
        field.usual_s = time.monotonic() - begun - _AROUND_S
        print(f"worker {number}: an undisturbed run takes {field.usual_s:.0f} s", flush=True)
        for kill in numbers:
            if time.time() > given.until:
                return
            line = field.kill_once(Draw.of(given.seed, kill)) | {"worker": number}
            with (Path(given.folder) / LINES).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)


def summary(lines: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """One row for each kind, counted from the lines."""
    rows = []
    for kind in KINDS:
        own = [line for line in lines if line["kind"] == kind]
        silos = [silo for line in own for silo in line["silos"]]
        rows.append(
            {
                "kind": kind,
                "kills": len(own),
                "ended": sum(line["ended"] and line["student"] for line in own),
                "resumed": sum(line["attempts"] > 1 for line in own),
                "paid_twice": sum(silo["paid_twice"] for silo in silos),
                "lost": sum(silo["lost"] for silo in silos) + sum(ANSWERS - silo["banked"] for silo in silos),
                "unpaid": sum(silo["unpaid"] for silo in silos),
                "answers": sum(silo["banked"] for silo in silos),
                "ledgers": len(silos),
                "ledgers_that_verify": sum(silo["ledger_verifies"] for silo in silos),
                "seconds": round(statistics.median(line["run_s"] for line in own), 0) if own else None,
                "phases": dict(Counter(line["phase"] for line in own)),
            }
        )
    return {
        "benchmark": "crashes",
        "config": str(CONFIG),
        "set": list(SMALL),
        "seed": seed,
        "commits": dict(Counter(line["commit"] for line in lines)),
        "kinds": rows,
        **provenance(),
    }


def read_lines(folder: Path, seed: int) -> list[dict[str, Any]]:
    """The kills made so far."""
    path = folder / LINES
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    return [line for line in lines if line["seed"] == seed]


def main() -> int:
    """Kills, as many as are missing; then sums up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=25, help="of each kind")
    parser.add_argument("--only", choices=KINDS, help="of one kind")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="federations side by side")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no kill after so many")
    parser.add_argument("--folder", default=str(Path(tempfile.gettempdir()) / "crashes"))
    parser.add_argument("--out", help="write the summary of all lines there")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.until = given.until or time.time() + 60 * given.minutes
    done = {line["number"] for line in read_lines(Path(given.folder), given.seed)}
    numbers = [number for number in range(given.kills * len(KINDS)) if number not in done]
    if given.only:
        numbers = [number for number in numbers if KINDS[number % len(KINDS)] == given.only]
    if given.worker is not None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        work(given, numbers[given.worker :: given.workers], given.worker)
        return 0
    if numbers and given.kills:
        Path(given.folder).mkdir(parents=True, exist_ok=True)
        again = [sys.executable, "-m", "benchmarks.crashes", *sys.argv[1:], "--until", str(given.until)]
        workers = [subprocess.Popen([*again, "--worker", str(number)]) for number in range(given.workers)]
        codes = [worker.wait() for worker in workers]
        print(f"workers ended with {codes}")
    if given.out:
        found = summary(read_lines(Path(given.folder), given.seed), given.seed)
        Path(given.out).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
