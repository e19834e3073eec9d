# SPDX-License-Identifier: Apache-2.0
"""A process that charges and answers without pause, and says what has left.

    python ledger_under_load.py LEDGER COUNTER

COUNTER is a file of eight bytes: images whose reply has left, written before the next query is taken.
"""

import mmap
import os
import sys
from pathlib import Path

from fedcpsc.ledger.ledger import Charge, Ledger, Reserved

DATA, IMAGES, REPLY_BYTES = "clinic north", 5, 10_000


def main(path: Path, counter: Path) -> None:
    ledger = Ledger.open(path, DATA)
    with open(counter, "r+b") as file, mmap.mmap(file.fileno(), 8) as left:
        number = 0
        while True:
            number += 1
            if isinstance(ledger.reserve(f"q{number}", "payload", Charge(IMAGES)), Reserved):
                ledger.store(f"q{number}", os.urandom(REPLY_BYTES))
                left[:8] = (number * IMAGES).to_bytes(8, "little")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
