# SPDX-License-Identifier: Apache-2.0
"""Everything both sides log of a whole run, scanned: ids and counts, no pixel, no answer, no path of a silo."""

import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
from support.silo_folder import make_folder
from support.tiny_runs import tiny_config

from fedcpsc.distillation.run import distill
from fedcpsc.distillation.transport import LocalTransport
from fedcpsc.errors import RefusalCode
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.logs import FIELDS, JsonLines, TextLines
from fedcpsc.runs.answer_bank import AnswerBank

SILOS = ("north", "south")
TRIED = re.compile(r"1,000 images take [\d.e-]+ s and \d+ MB of memory beyond the model \(30 a forward pass\)")


@pytest.fixture
def logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> tuple[Path, list[logging.LogRecord]]:
    """A run's folder and all records of it, the lowest level included; south refuses in the end."""
    caplog.set_level(logging.DEBUG, "fedcpsc")
    for digit, name, answers in zip("01", SILOS, (1000, 50), strict=True):
        policy = {"answers": answers, "images_per_query": 30, "bits": 32}
        make_folder(tmp_path / f"secret-{name}", policy=policy, silo=name, population=f"patients {digit}")
    gatekeepers = [open_gatekeeper(tmp_path / f"secret-{name}") for name in SILOS]
    distill(tiny_config(), LocalTransport(gatekeepers), tmp_path / "run")
    for gatekeeper in gatekeepers:
        gatekeeper.close()
    return tmp_path / "run", [record for record in caplog.records if record.name.startswith("fedcpsc")]


def test_the_log_of_a_run_names_ids_and_counts_and_nothing_of_the_data(
    logged: tuple[Path, list[logging.LogRecord]],
) -> None:
    run, records = logged
    bank = AnswerBank(run / "bank", (1, 8, 8), 2, SILOS)
    ids = {batch.query_id for batch in bank.batches}
    lines = [json.loads(JsonLines().format(record)) for record in records]
    messages = {line["message"] for line in lines}
    assert messages >= {
        "answered a query",
        "refused a query",
        "asked a silo",
        "took a silo's answers",
        "a round is done",
    }
    assert {line["query_id"] for line in lines if "query_id" in line} == ids
    # every sentence is a constant, so whatever differs from run to run stands in a field whose values are known here
    assert not any(record.args for record in records)
    known = {
        "run": {"test"},
        "round": set(range(1, 5)),
        "silo": set(SILOS),
        "query_id": ids,
        "code": set(RefusalCode),
        "images": {batch.count for batch in bank.batches},
        "left": {*range(0, 1001)},
        "note": {"budget", "its budget is spent"},
    }
    for line in lines:
        given = {name: value for name, value in line.items() if name not in ("time", "level", "logger", "message")}
        if line["message"] == "tried the teacher on invented images":
            assert TRIED.fullmatch(given.pop("note")), line
        assert set(given) <= set(FIELDS)
        for name, values in known.items():
            assert given.get(name, next(iter(values))) in values, line
        for value in given.values():
            assert isinstance(value, str | int | float)


def test_no_form_of_the_log_holds_an_image_an_answer_or_a_path(logged: tuple[Path, list[logging.LogRecord]]) -> None:
    run, records = logged
    bank = AnswerBank(run / "bank", (1, 8, 8), 2, SILOS)
    whole = "\n".join(form.format(record) for record in records for form in (TextLines(), JsonLines()))
    whole += "\n".join(str(vars(record)) for record in records)
    assert "secret-" not in whole
    assert "safetensors" not in whole
    images = bank.images[:: bank.rows // 20]
    answers = np.concatenate([bank.answers(batch)[0][0] for batch in bank.batches])
    assert len(np.unique(answers[:, 0])) > 10  # or there would be nothing to find
    needles = {image.tobytes().hex()[:16] for image in images}
    needles |= {str(image.reshape(-1)[:6].tolist())[1:-1] for image in images}
    needles |= {repr(value) for value in np.unique(answers).tolist() if 0 < value < 1}
    assert not [needle for needle in needles if needle in whole]
