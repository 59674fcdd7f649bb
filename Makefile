# `make run` and `make test` are all a newcomer needs; each sets up a virtual environment in .venv first.
PYTHON ?= python3
VENV ?= .venv
# Without a GPU, the CPU build of torch saves gigabytes: make run TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
ARGS ?= scheme=proposed mu=20
# Tests run in this many processes; each takes about 1 GB of memory.
TEST_PROCESSES ?= 2
ONLY ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Its notice about other projects is no warning of ours.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs
# One torch thread a process: more change the last bits of results, and are slower on a busy machine.
export OMP_NUM_THREADS = 1
export MKL_NUM_THREADS = 1

.PHONY: help setup data run reproduce map race test test-all gpu-check lint coverage mutants types format comments docs docs-serve wheel clean

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/ready ## make the virtual environment .venv with everything in it

$(VENV)/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("dtsim needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) --constraint constraints.txt torch torchvision
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	@touch $@

# Where the data set's own addresses cannot be reached, this gets it from Debian's package, with apt and without root.
# `dtsim run` alone never calls apt. Nothing happens where the cache holds the data, or ARGS ask for other data.
DATA := $(BIN)/python -m dtsim.learning.data.debian

data: setup ## put Fashion-MNIST into the cache: the system's copy, the network's, or that of Debian's package
	$(DATA)

run: setup ## run one experiment (ARGS="scheme=proposed mu=20"), set-up included
	@$(DATA) $(ARGS)
	$(BIN)/dtsim run $(ARGS)

reproduce: setup ## the paper's figures and a verdict on its claims (QUICK=1: a small one in minutes)
	@$(DATA)
	$(BIN)/python scripts/reproduce.py $(if $(QUICK),--quick)

map: setup ## where the proposed scheme wins, loses, and what flips it: 2,400 runs, hours
	@$(DATA)
	$(BIN)/python scripts/map.py

race: setup ## inference and training race for compute where time passes: 30 runs, half an hour
	@$(DATA)
	$(BIN)/python scripts/race.py

test: setup ## run the tests (a few minutes), set-up included
	$(BIN)/python -m pytest -m "not slow" --numprocesses $(TEST_PROCESSES) --dist worksteal

test-all: setup ## run the slow tests too: real data, full training
	-@$(DATA)
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist worksteal

gpu-check: setup ## on a machine with a CUDA GPU: tests, runs and benchmarks on it, and one report
	@$(DATA)
	$(BIN)/python -m scripts.gpu_check

coverage: setup ## print how much of the core the tests run; below 90 % of its lines fails
	$(BIN)/python -m pytest -m "not slow" --numprocesses $(TEST_PROCESSES) --dist worksteal --cov --cov-report=term

mutants: setup ## put faults into the core, one at a time: do the tests notice? (ONLY=loop.py: those of a file)
	$(BIN)/python scripts/mutants.py --processes $(TEST_PROCESSES) --only "$(ONLY)"

lint: setup ## check style (ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## check types (mypy)
	$(BIN)/mypy

format: setup ## put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

comments: setup ## write the comments of conf/ from the classes that its keys belong to
	$(BIN)/python scripts/comment_conf.py

docs: setup ## build the documentation into build/docs; a broken link fails
	$(MKDOCS) build --strict --quiet

docs-serve: setup ## show the documentation at http://127.0.0.1:8000 while it is written
	$(MKDOCS) serve

wheel: setup ## build the wheel into dist/
	$(BIN)/python -m build --wheel

clean: ## remove the virtual environment and everything built (not outputs/)
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
