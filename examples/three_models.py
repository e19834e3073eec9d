# SPDX-License-Identifier: Apache-2.0
"""Three torch modules become one student; nobody gives away data, weights or gradients.

    python examples/three_models.py

About a minute of one core. `shift` moves what the student sees by so many pixels: an eighth of so small an image is too
much.
"""

from own_teachers import CLASSES, organisations

import fedcpsc

own = organisations()
federation = fedcpsc.simulate(own.models, classes=CLASSES, image_shape=(1, 8, 8), normalisation="none")
run = fedcpsc.distill(federation, answers=2000, rounds=10, student={"width": 16, "shift": 0}, held_out=own.held_out)
student = run.student  # a torch.nn.Module; run.save("runs/mine") keeps it
print(run, run.curve, run.bank, student, sep="\n")
