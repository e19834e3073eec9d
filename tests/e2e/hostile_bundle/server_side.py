# SPDX-License-Identifier: Apache-2.0
"""The bundle's ServerApp: a large honest query, the attacks, a small honest query; writes down what came back."""

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from fedcpsc.protocol.messages import Answer, AnswerForm, Query
from fedcpsc.protocol.records import from_records, to_records

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    told = context.run_config
    side = int(told["side"])
    while not (nodes := list(grid.get_node_ids())):
        time.sleep(0.5)

    def send(action: str, content: RecordDict) -> RecordDict:
        (reply,) = grid.send_and_receive([Message(content, nodes[0], f"query.{action}")], timeout=400)
        return reply.content

    def ask(number: int, count: int) -> dict[str, object]:
        images = np.random.default_rng(number).integers(0, 256, (count, 1, side, side), dtype=np.uint8)
        query = Query(f"{number:032x}", AnswerForm.PROBABILITIES, images, run="honest", principal="honest")
        begun = time.monotonic()
        reply = from_records(send("answer", to_records(query)))
        seconds = round(time.monotonic() - begun, 1)
        said = {"answers": reply.count} if isinstance(reply, Answer) else {"refused": reply.code}
        return {"bytes": images.nbytes, "seconds": seconds, **said}

    large = ask(200_000, int(told["images"]))
    attacked = json.loads(str(send("attack", RecordDict())["report"]["json"]))
    small = ask(200_001, 1)
    Path(str(told["out"])).write_text(json.dumps({"large": large, "attacked": attacked, "small": small}))
