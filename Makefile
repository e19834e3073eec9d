# Every target does all its own set-up: a virtual environment in .venv, made anew when pyproject.toml changes.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

# TORCH=cpu: PyTorch's own build without CUDA, by the command that pytorch.org gives for it; both from there, since the
# torchvision of the package index fits the torch of that index alone
TORCH     ?=
CPU_TORCH := torch torchvision --index-url https://download.pytorch.org/whl/cpu

# one worker for each core, up to four: each takes a thread and one to two gigabytes (tests/conftest.py deals the tests)
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest \
	--numprocesses logical --maxprocesses 4 --no-loadscope-reorder

export FLWR_TELEMETRY_ENABLED = 0
export FLWR_DISABLE_UPDATE_CHECK = 1

.PHONY: help demo test test-fast check format docs clean

help:  ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, $(PYTHON) is " \
		+ sys.version.split()[0] + ": make $(MAKECMDGOALS) PYTHON=python3.12")'
	@if [ -e $(BIN)/python ]; then echo "pyproject.toml has changed: bringing $(VENV) up to date"; else \
		echo "Installing into $(VENV) what pyproject.toml lists, once: 3.5 GB to download and 7 GB on the disk, most of"; \
		echo "it PyTorch. pip names what it fetches, is then silent while it unpacks, and took 8 minutes on two cores."; \
		if [ -z "$(TORCH)" ] && [ "$$(uname -s)" = Linux ] && [ ! -e /proc/driver/nvidia ]; then \
			echo "No NVIDIA GPU is to be seen here. PyTorch's build for CPUs is far smaller: stop this, and say"; \
			echo "  make $(MAKECMDGOALS) TORCH=cpu"; fi; fi
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@begin=$$(date +%s); set -e; \
	if [ "$(TORCH)" = cpu ]; then $(BIN)/python -m pip install $(CPU_TORCH); fi; \
	$(BIN)/python -m pip install --editable ".[dev,docs,onnx,tensorboard,timm,huggingface]"; \
	echo "Installed in $$(( $$(date +%s) - begin )) s. Use it in this shell: . $(BIN)/activate"
	@touch $@

demo: $(READY)  ## three silos of handwritten digits become one student (a minute or two after the installation)
	$(BIN)/fedcpsc run configs/digits.yaml --overwrite

test: $(READY)  ## the whole test suite
	$(PYTEST)

test-fast: $(READY)  ## the inner loop, about a minute on two cores: no processes, no browser, no whole runs
	$(PYTEST) -m "not (gpu or e2e or browser or processes or slow)"

check: $(READY)  ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)  ## put the code into the house's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)  ## the documentation site, into site/; a link that leads nowhere fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo "open $(CURDIR)/site/index.html; with search: $(BIN)/python -m http.server -d site"

clean:  ## remove the environment and caches, keep runs and silos
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
