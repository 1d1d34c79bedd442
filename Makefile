# A newcomer types `make run` and `make test`; both set up .venv first where it is missing or older than the lock.
# Packages come from wherever pip is configured to look (pip.conf, PIP_INDEX_URL, PIP_FIND_LINKS, ...).

PYTHON  ?= python3
WORKERS ?= 2
ARGS    ?=

BIN   := .venv/bin
SWEEP := $(BIN)/python -m reckoning.train -m +sweep=first scale=cpu hydra/launcher=local
TABLE := $(BIN)/python -m scripts.tables
DATA  := $(BIN)/python -m reckoning.data +experiment=proofwriter scale=cpu
TESTS := $(BIN)/python -m pytest -n $(WORKERS)

.DEFAULT_GOAL := help
.PHONY: help setup setup-flower run tables report data test test-faults test-slurm slurm-packages gpu lint type format clean

help:  ## show these lines
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{ printf "  make %-14s %s\n", $$1, $$2 }'

setup: .venv/ready  ## make .venv with the locked versions (again only when the lock has changed)

setup-flower: .venv/ready-flower  ## add Flower to .venv, for federations of several processes or machines (0.4 GB)

run: .venv/ready  ## train the main comparison on the embedded default and print its table (3 minutes, 2 cores)
	$(SWEEP) $(ARGS)
	$(TABLE) experiment=proofwriter_repaired

tables: .venv/ready  ## print the tables of the runs that are there
	$(TABLE) $(ARGS)

report: .venv/ready  ## write report.html: all results on one page that opens without network
	$(BIN)/python -m scripts.report $(ARGS)

data: .venv/ready  ## build, check, count and audit the generated problems
	$(DATA) $(ARGS)

test: .venv/ready  ## run the tests (ARGS='-k name' to choose, WORKERS=8 for more processes)
	$(TESTS) $(ARGS)

test-faults: .venv/ready  ## kill runs, let every call of the disk fail, flip every bit
	$(TESTS) -m faults $(ARGS)

test-slurm: .venv/ready  ## run sweeps on a real SLURM of one node (as root, after make slurm-packages)
	$(BIN)/python -m pytest -m slurm -rs --log-cli-level=INFO $(ARGS)

slurm-packages: .venv/ready  ## install the Debian packages of that SLURM, as root; no service is started
	$(BIN)/python -m tests.slurm.node install

gpu: .venv/ready  ## on a machine with a GPU: its tests, benchmarks and two trainings, 25 minutes a call, and a page
	$(BIN)/python -m scripts.gpu $(ARGS)

lint: .venv/ready  ## check style and format with ruff
	$(BIN)/ruff check
	$(BIN)/ruff format --check

type: .venv/ready  ## check types with mypy
	$(BIN)/mypy

format: .venv/ready  ## let ruff mend style and format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:  ## remove caches and build products; runs and .venv stay
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# A set-up that was cut off may leave a package half copied which pip would take for a whole one: pip writes INSTALLER
# after the last file, so whatever lacks it is forgotten first and then installed again.
.venv/ready: requirements.lock pyproject.toml
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { $(CHECK_PYTHON); $(PYTHON) -m venv --clear .venv; }
	@find .venv/lib -maxdepth 3 -name '*.dist-info' ! -exec test -e '{}/INSTALLER' ';' -prune -exec rm -rf {} +
	$(BIN)/python -m pip install --constraint requirements.lock "$$(grep '^torch==' requirements.lock)"
	$(BIN)/python -m pip install --requirement requirements.lock
	$(BIN)/python -m pip install --no-deps --no-build-isolation --editable .
	@touch $@

.venv/ready-flower: .venv/ready requirements-flower.lock
	$(BIN)/python -m pip install --constraint requirements.lock --requirement requirements-flower.lock
	@touch $@

define CHECK_PYTHON
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
  echo "Python 3.11 or newer is needed, but '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)"; \
  echo "If another one is installed, name it: make PYTHON=python3.11 setup"; exit 1; }; \
$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
  version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
  echo "'$(PYTHON)' cannot make virtual environments. On Debian and Ubuntu: apt install python$$version-venv"; exit 1; }
endef
