# SPDX-License-Identifier: Apache-2.0
"""What Prometheus is shown, and that two silos with nothing in common but their policies show the same."""

import contextlib
import socket
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families
from support.silo_folder import SHAPE, make_folder

from fedcpsc.errors import ConfigError, LedgerError, RefusalCode, SiloError
from fedcpsc.gatekeeper.gatekeeper import Gatekeeper
from fedcpsc.gatekeeper.listening import bound_address, bound_socket
from fedcpsc.gatekeeper.metrics import LEDGER_SECONDS, REPLY_SECONDS, PrometheusMeter, serving_metrics
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.gatekeeper.remote import SocketGatekeeper
from fedcpsc.gatekeeper.service import build_app
from fedcpsc.protocol.messages import Answer, AnswerForm, DescribeRequest, Query, Refusal

Shown = dict[tuple[str, str], float]


def shown(text: str) -> Shown:
    """Samples by name and label, without the prefix and the moment a counter was made."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {
        (sample.name.removeprefix("fedcpsc_gatekeeper_"), "".join(sample.labels.values())): sample.value
        for sample in samples
        if not sample.name.endswith("_created")
    }


@contextlib.contextmanager
def metered(folder: Path) -> Iterator[tuple[SocketGatekeeper, Path]]:
    """A client of the silo in `folder`, served in this process, and the socket of its metrics."""
    silo = open_gatekeeper(folder)
    meter = PrometheusMeter(silo.answers_left)
    gatekeeper = Gatekeeper(**{**vars(silo), "meter": meter})
    app = build_app(gatekeeper, silo.policy.service, 10_000, meter)
    server = uvicorn.Server(uvicorn.Config(app, ws="none", lifespan="off", log_level="error"))
    with (
        contextlib.closing(silo),
        bound_socket(folder / "s") as listening,
        serving_metrics(meter, str(folder / "m")),
        contextlib.closing(SocketGatekeeper(folder / "s")) as client,
    ):
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.005)
        yield client, folder / "m"
        client.close()
        server.should_exit = True
        thread.join()


def read(path: Path) -> str:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), trust_env=False) as http:
        return http.get("http://metrics/metrics").raise_for_status().text


def asked(number: int, count: int = 2, form: AnswerForm = AnswerForm.PROBABILITIES) -> Query:
    images = np.random.default_rng(number).integers(0, 256, (count, *SHAPE), dtype=np.uint8)
    return Query(f"{number:032x}", form, images)


def converse(client: SocketGatekeeper) -> list[Answer | Refusal]:
    client.describe(DescribeRequest())
    first = asked(1)
    queries = [first, asked(2, 30), first, asked(3, form=AnswerForm.LABEL), asked(4, 51), asked(5, 50), asked(6, 19)]
    return [client.answer(query) for query in queries]


def test_the_counters_say_what_was_asked_and_answered(tmp_path: Path) -> None:
    make_folder(tmp_path / "silo")
    with metered(tmp_path / "silo") as (client, metrics):
        assert stat.S_IMODE(metrics.stat().st_mode) == 0o600
        before = shown(read(metrics))
        converse(client)
        after = shown(read(metrics))
    assert before["up", ""] == after["up", ""] == 1
    assert (before["answers_left", ""], after["answers_left", ""]) == (100, 18)
    assert (before["answers_total", ""], after["answers_total", ""]) == (0, 82)
    assert after["replays_total", ""] == 1
    assert {kind: after["replies_total", kind] for kind in ("answer", "description", "refusal")} == {
        "answer": 4,
        "description": 1,
        "refusal": 3,
    }
    refused = {RefusalCode.FORM: 1, RefusalCode.TOO_MANY_IMAGES: 1, RefusalCode.BUDGET: 1}
    assert {
        code: after["refusals_total", code.value] for code in RefusalCode if after["refusals_total", code]
    } == refused
    assert after["ledger_write_seconds_count", ""] == 7  # three charges and three replies, and a refusal
    assert after["reply_seconds_count", ""] == 8
    assert {label for name, label in after if name == "reply_seconds_bucket"} == {*map(str, REPLY_SECONDS), "+Inf"}


def test_no_metric_depends_on_the_private_data(tmp_path: Path) -> None:
    make_folder(tmp_path / "a", b"128")
    counts = {"private_class_counts": (1, 19_999), "train_size": 20_000}
    make_folder(tmp_path / "b", b"1", population="south", silo="south", **counts)
    found: list[Shown] = []
    replies: list[list[Answer | Refusal]] = []
    for name in "ab":
        with metered(tmp_path / name) as (client, metrics):
            replies.append(converse(client))
            found.append(shown(read(metrics)))
    answers = [[reply.values.tolist() for reply in one if isinstance(reply, Answer)] for one in replies]
    assert answers[0] != answers[1]  # the teachers do differ
    one, other = ({key: value for key, value in each.items() if "seconds" not in key[0]} for each in found)
    assert one == other
    assert {key for key in found[0] if "seconds" in key[0]} == {key for key in found[1] if "seconds" in key[0]}


def test_of_time_only_coarse_classes_are_shown() -> None:
    from prometheus_client import generate_latest

    texts = []
    for quick, slow in ((0.0123, 4.4), (0.0987, 7.7)):
        meter = PrometheusMeter(lambda: 0)
        meter.replied(Refusal(RefusalCode.BUSY), quick)
        meter.replied(Refusal(RefusalCode.BUSY), slow)
        meter.wrote_ledger(slow)
        meter.wrote_ledger(1000 * slow)
        texts.append(shown(generate_latest(meter.registry).decode()))
    assert texts[0] == texts[1]
    assert texts[0]["reply_seconds_sum", ""] == pytest.approx(REPLY_SECONDS[0] + REPLY_SECONDS[2])
    assert texts[0]["ledger_write_seconds_sum", ""] == pytest.approx(3 * LEDGER_SECONDS[-1])


def test_a_ledger_that_cannot_be_read_is_no_number() -> None:
    from prometheus_client import generate_latest

    def failing() -> int:
        raise LedgerError("the disk is gone")

    assert "fedcpsc_gatekeeper_answers_left NaN" in generate_latest(PrometheusMeter(failing).registry).decode()


def test_metrics_over_tcp_are_for_this_machine_alone(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
        with pytest.raises(SiloError, match="is taken"), bound_address(f"127.0.0.1:{port}"):
            pass
    meter = PrometheusMeter(lambda: 7)
    with serving_metrics(meter, f"127.0.0.1:{port}"):
        found = shown(httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text)
    assert found["answers_left", ""] == 7
    for outside in ("0.0.0.0:9464", "192.168.1.7:9464", "[::]:9464", "example.org:9464", "127.0.0.1:99999"):
        with pytest.raises(ConfigError, match="must be a port of a loopback address"), bound_address(outside):
            pass
    assert not list(tmp_path.iterdir())


def test_several_threads_count_together() -> None:
    meter = PrometheusMeter(lambda: 0)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: meter.answered(3), range(1000)))
    assert meter.registry.get_sample_value("fedcpsc_gatekeeper_answers_total") == 3000
