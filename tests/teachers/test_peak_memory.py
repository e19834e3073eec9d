# SPDX-License-Identifier: Apache-2.0
"""What a pass takes is measured, and a batch that does not fit is refused. Each test has a process of its own, whose
high-water mark no earlier test has raised."""

import subprocess
import sys

TEACHER = """
import numpy as np
from fedcpsc.errors import TeacherError
from fedcpsc.teachers import trial
from fedcpsc.teachers.peak_memory import PeakMemory, free_memory

SHAPE = (3, 6, 5)


class Greedy:
    \"""Holds a megabyte for each image of a pass.\"""

    classes, image_shape, counts = 4, SHAPE, []

    def predict(self, images):
        self.counts.append(len(images))
        ballast = np.ones(len(images) * 2**17)
        logits = images.reshape(len(images), -1)[:, : self.classes] / 64 + 0 * ballast[-1]
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return (powers / powers.sum(1, keepdims=True)).astype(np.float32)
"""


def in_a_process(code):
    """What it prints."""
    done = subprocess.run([sys.executable, "-c", TEACHER + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_memory_of_a_pass_is_measured():
    peak = int(in_a_process("print(trial.try_teacher(Greedy(), SHAPE, 64).peak_bytes)"))
    assert 60 * 2**20 < peak < 120 * 2**20


def test_a_batch_that_does_not_fit_into_memory_is_refused_before_it_is_tried():
    said = in_a_process("""
trial.free_memory = lambda: 200 * 2**20
try:
    trial.try_teacher(Greedy(), SHAPE, 500)
except TeacherError as error:
    print(max(Greedy.counts), error)
""")
    largest, _, why = said.partition(" ")
    assert int(largest) < 160
    assert "service.batch_size=500: " in why
    assert "set it to 1" in why


def test_the_batch_that_is_chosen_stays_within_its_memory():
    chosen = int(in_a_process("print(trial.batch_that_fits(Greedy(), SHAPE))"))
    assert 8 <= chosen <= 512  # more than 8 images only where that is faster; under 512 MiB


def test_what_is_resident_at_most_is_seen_also_where_it_is_gone_at_once():
    said = in_a_process("""
with PeakMemory() as memory:
    np.ones(50 * 2**17).sum()
print(memory.extra, free_memory())
""")
    extra, free = map(int, said.split())
    assert 45 * 2**20 < extra < 100 * 2**20
    assert free > 2**20
