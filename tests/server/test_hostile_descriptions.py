# SPDX-License-Identifier: Apache-2.0
"""Descriptions that one node sends over Flower and that no silo of ours would: the other nodes join all the same."""

import json

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from support.fakes import FakeSilo
from support.inproc_grid import InProcGrid
from support.tiny_runs import tiny_config

import clients.app
import server.flower_transport
from fedcpsc.distillation.run import distill
from fedcpsc.protocol.codec import fields_of
from server.flower_transport import FlowerTransport

pytestmark = pytest.mark.slow  # whole runs

GOOD, _ = fields_of(FakeSilo("silo-2").description)


def changed(**changes):
    return json.dumps({**GOOD, **changes})


HOSTILE = {
    "no JSON": "{",
    "a list": "[]",
    "nested too deeply": "[" * 100_000,
    "no kind": "{}",
    "NaN": changed(noise_sigma=float("nan")),
    "a number of a thousand digits": changed().replace('"noise_sigma": 0.0', '"noise_sigma": 1' + "0" * 1000),
    "noise of 1e300": changed(noise_sigma=1e300),
    "counts of 1e39": changed(class_report={"counts": [1e39] * 3, "dp": {}}),
    "counts that are text": changed(class_report={"counts": "many", "dp": {}}),
    "a claim of other fields": changed(claim={"os": "system"}),
    "names that are mappings": changed(class_names=[{}, {}, {}]),
    "forms that are none": changed(forms=["sonnet"]),
    "an image shape of text": changed(image_shape="abc"),
    "another major version": changed(version="9.0"),
    "escape characters": changed(silo="\x1b[31m"),
    "the name of another": changed(silo="silo-0"),
    "a query in place of a description": json.dumps({"kind": "describe", "version": "1.2"}),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_one_nodes_hostile_description_leaves_the_others_their_run(case, tmp_path, monkeypatch, caplog):
    silos = [FakeSilo("silo-0"), FakeSilo("silo-1"), FakeSilo("silo-2")]
    monkeypatch.setattr(clients.app, "target_of", lambda node, run, app, group: silos[node["which"]])
    monkeypatch.setattr(server.flower_transport, "_RETRY_S", 0.1)

    def serve(message, context):
        if context.node_config["which"] == 2:
            return Message(RecordDict({"fedcpsc": ConfigRecord({"message": HOSTILE[case]})}), reply_to=message)
        return clients.app.app(message, context)

    grid = InProcGrid(serve, [{"which": i} for i in range(3)])
    transport = FlowerTransport(grid, ttl_s=10)
    told = []
    config = tiny_config(silos__count=3, queries__quorum=0.6, queries__hello_timeout_s=0.5, student__committee=1)
    try:
        result = distill(config, transport, tmp_path / "run", tell=told.append)
    finally:
        transport.close()
        grid.close()
    assert [(silo["id"], silo["answers"]) for silo in result["silos"]] == [("silo-0", 120), ("silo-1", 120)]
    lines = [line for line in told if "not let in" in line]
    assert len(lines) == 1
    assert lines[0].isprintable()
    assert lines[0].startswith(("node ", "silo-2 "))
    assert not any(record.exc_info for record in caplog.records)
