"""The tables of README and docs, from the JSON under `benchmarks/results/`."""
