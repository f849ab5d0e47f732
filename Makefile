# make demo   molecules -> spectra -> a trained model, on this machine (again: seconds; after Ctrl-C: carries on)
# make test   the tests; PYTEST_ARGS='tests/store -k lease' some of them
# make lint   ruff, mypy --strict, import contracts
# make bench  MOLECULES=FILE: the manager's own speed: expanding sites, planning, submitting, status
# make bench-clusters TIMES=FILE: calculations per second, pilots into a queue, use of allocations, recovery from faults
# make reference  CAMPAIGN=FILE: the reference dataset from its campaign file, into scratch/
# make bench-ingest  RUNS=FOLDER: run folders of FEFF, read and checked against the files
# make bench-training: nets through Dask beside plain torch, and beside the core's own matrix products
# make bench-dataset  SMILES=FILE: freezing and reopening made-up files of the published database, 117,340 sites (4 GB)
# make chaos  SEED=1 REPEAT=1 ENGINE=fake FORM=long: a campaign on a real Slurm while everything fails, and the proof
# make slurm-up, make slurm-down  NODES=3 CPUS=4 SLURM_DIR=FOLDER: a real Slurm on this machine (deploy/slurm)
# make wheel  dist/htxas-*.whl
#
# Each installs what it needs into ./.venv first, at the versions of constraints.txt, with pip's own configuration
# (PIP_INDEX_URL, PIP_FIND_LINKS, pip.conf). PYTHON=/path/to/python3.12 chooses the interpreter; JOBS=4 the workers.

PYTHON ?=
JOBS ?= 2
DIR ?= demo-run
MOLECULES ?=
TIMES ?=
RUNS ?=
SMILES ?=
PYTEST_ARGS ?=
CAMPAIGN ?= workflows/reference/campaign.yaml
SEED ?= 1
REPEAT ?= 1
ENGINE ?= fake
FORM ?= long
NODES ?= 3
CPUS ?= 4
SLURM_DIR ?= $(HOME)/minislurm
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed.stamp

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench bench-clusters bench-ingest bench-dataset bench-training reference chaos slurm-up slurm-down wheel clean install
.NOTPARALLEL:
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@PYTHON='$(PYTHON)' VENV='$(VENV)' sh .ci/venv.sh
	@touch $@

demo: $(STAMP)
	@$(BIN)/htxas demo --jobs $(JOBS) --dir $(DIR)

# Two at once, then those with a Slurm of their own, which need the machine for themselves.
test: $(STAMP)
ifeq ($(PYTEST_ARGS),)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --ignore tests/slurm
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/slurm
else
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)
endif

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	@test -f '$(MOLECULES)' || { echo "make bench MOLECULES=FILE: a file of geometries, e.g. all of QM9 as .xyz" >&2; exit 1; }
	$(BIN)/python tests/benchmarks/expand_sites.py '$(MOLECULES)'
	@export HTXAS_HOME='$(CURDIR)/scratch/bench'; unset HTXAS_DB_URI HTXAS_DB_URI_FILE; \
	trap '$(BIN)/htxas db down' EXIT; $(BIN)/htxas db up && \
	HTXAS_DB_URI_FILE="$$HTXAS_HOME/db/uri" $(BIN)/python tests/benchmarks/plan_submit.py '$(MOLECULES)'

# Needs a real Slurm (see .ci/run for its Debian packages); the last part is a short chaos run of its own.
bench-clusters: $(STAMP)
	@test -f '$(TIMES)' || { echo "make bench-clusters TIMES=FILE: smiles and castep_time_s of molecules, as CSV" >&2; exit 1; }
	@unset HTXAS_DB_URI HTXAS_DB_URI_FILE; export OMP_NUM_THREADS=1; \
	$(BIN)/python tests/benchmarks/throughput.py && $(BIN)/python tests/benchmarks/submit_pilots.py && \
	$(BIN)/python tests/benchmarks/utilisation.py '$(TIMES)' && $(MAKE) --no-print-directory chaos FORM=short

bench-ingest: $(STAMP)
	@test -d '$(RUNS)' || { echo "make bench-ingest RUNS=FOLDER: run folders of FEFF" >&2; exit 1; }
	@OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/ingest.py '$(RUNS)' --jobs $(JOBS)

bench-training: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/training.py --workers $(JOBS)

bench-dataset: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/dataset.py scratch/bench-dataset \
	    $(if $(SMILES),--smiles '$(SMILES)')

# The reference dataset anew (about an hour on two cores), or a longer one: a campaign file with another name and limit.
# What is finished in scratch/reference is not computed again.
reference: $(STAMP)
	@export HTXAS_HOME='$(CURDIR)/scratch/reference'; unset HTXAS_DB_URI HTXAS_DB_URI_FILE; \
	trap '$(BIN)/htxas db down' EXIT; $(BIN)/htxas db up && \
	name="$$(sed -n 's/^campaign: *//p' '$(CAMPAIGN)')" && \
	$(BIN)/htxas campaign submit '$(CAMPAIGN)' && \
	$(BIN)/htxas run --jobs $(JOBS) --campaign "$$name" && \
	$(BIN)/htxas export "$$name" --format dataset --force --output "$(CURDIR)/scratch/$$name.h5"

# About eight minutes a run, as root or an ordinary user (who cannot fill a disk: that fault is left out then).
chaos: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.slurm.chaos --form $(FORM) --seed $(SEED) --repeat $(REPEAT) \
	    --engine $(ENGINE) --out scratch/chaos
	@$(BIN)/python tests/benchmarks/recovery.py scratch/chaos

slurm-up:
	@python3 deploy/slurm/minislurm.py start '$(SLURM_DIR)' --nodes $(NODES) --cpus $(CPUS)
	@echo 'next: eval "$$(deploy/slurm/minislurm.py env $(SLURM_DIR))"'

slurm-down:
	@python3 deploy/slurm/minislurm.py stop '$(SLURM_DIR)'

wheel: $(STAMP)
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	@ls -l dist

# Leaves demo-run/ alone: it may hold hours of computing. Remove it by hand.
clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
