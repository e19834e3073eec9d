#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What a GPU shows in ten minutes, as one JSON: tests, white-box step against the port, rounds, a profile.
#
#     benchmarks/gpu_check.sh --out gpu_check.json          # on a machine with a GPU
#     benchmarks/gpu_check.sh --cpu --out gpu_check.json    # small, on a CPU: to see that its parts run
#
# Needs the project's environment (`make test-fast` makes it); PYTHON names another interpreter.
set -eu
cd "$(dirname "$0")/.."
exec "${PYTHON:-python}" -m benchmarks.gpu_check "$@"
