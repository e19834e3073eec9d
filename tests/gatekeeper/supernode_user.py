# SPDX-License-Identifier: Apache-2.0
"""Runs one message through a ClientApp in this process, as Flower's own `flwr-clientapp` does under a SuperNode's user.

`python supernode_user.py MODULE NODE_CONFIG RUN_CONFIG < message > reply`: the configurations are JSON; message and
reply are of the query protocol, but for a reply with a record `report`, which is printed as JSON.
"""

from __future__ import annotations

import importlib
import json
import sys

from flwr.app import Message
from support.inproc_grid import FIRST_NODE, InProcGrid

from fedcpsc.protocol.codec import from_bytes, to_bytes
from fedcpsc.protocol.records import from_records, to_records


def main(module: str, node_config: str, run_config: str) -> None:
    app = importlib.import_module(module).app
    grid = InProcGrid(app, [json.loads(node_config)], json.loads(run_config))
    records = to_records(from_bytes(sys.stdin.buffer.read()))
    (reply,) = grid.send_and_receive([Message(records, FIRST_NODE, "query.answer")])
    grid.close()
    if reply.has_error():
        raise SystemExit(f"error {reply.error.code}: {reply.error.reason}")
    content = reply.content
    found = str(content["report"]["json"]).encode() if "report" in content else to_bytes(from_records(content))
    sys.stdout.buffer.write(found)


if __name__ == "__main__":
    main(*sys.argv[1:])
