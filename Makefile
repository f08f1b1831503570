# Two commands: `make run` and `make test`. Needs Debian's python3 (3.11 to 3.13, with venv), git and make.
NAME ?= car_racing
PYTHON ?= python3
VENV := .venv
# The stages' `python` (dvc.yaml) and every tool come from the environment, whatever the caller's PATH says.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Compiled modules are kept, so that a command starts in a second: pip leaves them to the first import.
unexport PYTHONDONTWRITEBYTECODE
INSTALLED := $(VENV)/.installed
PIP := $(VENV)/bin/python -m pip install --disable-pip-version-check --quiet --progress-bar off --no-compile -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help install run up down test faults lint docs plots audit ui bench clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# A stamp, so that nothing is installed twice. A half-made environment is made anew.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "$(PYTHON) has to be Python 3.11, 3.12 or 3.13 with venv (Debian: apt install python3-venv); or name another: make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) -e '.[pipeline]'
	@touch $@

# What only some need, on top: developers, the world of Doom, the pages.
$(VENV)/.%: $(INSTALLED)
	$(PIP) -e '.[$*]'
	@touch $@

install: $(INSTALLED) $(EXTRAS:%=$(VENV)/.%)  ## the environment in .venv, with the pinned packages (EXTRAS="dev doom export page plots docs")

run: $(INSTALLED) $(if $(findstring take_cover,$(NAME)),$(VENV)/.doom)  ## the whole pipeline, from nothing to a scored agent (NAME=smoke is tiny; SEED=1, SEEDS=0,1,2, BUDGET=2h, MACHINE=gpu16)
	@python -m flows.pipeline $(NAME) $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS)) \
	  $(if $(BUDGET),--budget $(BUDGET)) $(if $(MACHINE),--machine $(MACHINE)) $(if $(GATE),--gate)

up: $(INSTALLED) $(VENV)/.doom  ## what schedules need, on this machine: Prefect, MLflow, workers, the deployments of prefect.yaml
	@python -m flows.up start

down: $(INSTALLED)  ## end all that `make up` started
	@python -m flows.up stop

# Three at once on two cores: tests wait for servers more than they compute.
test: $(VENV)/.dev  ## all tests
	@python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

faults: $(VENV)/.dev $(VENV)/.servers $(VENV)/.faults  ## what is lost when things are killed, full, damaged, hostile or gone (two hours; ROWS="disk_full memory")
	@python -m faults $(ROWS)

lint: $(VENV)/.dev  ## style, types, and which room imports which
	@ruff check . && ruff format --check . && lint-imports --no-logo && mypy

docs: $(VENV)/.docs  ## the pages of docs/ as a site in build/docs; a dead link fails
	@NO_MKDOCS_2_WARNING=1 mkdocs build && echo build/docs/index.html

plots: $(VENV)/.plots  ## losses, searches and scores of what is here, on one page (dvc plots show, with no network)
	@python -m flows.plots

audit: $(VENV)/.dev  ## known vulnerabilities of the pinned packages (asks PyPI)
	@pip-audit --no-deps --disable-pip --progress-spinner off -r constraints.txt

ui: $(INSTALLED)  ## MLflow's pages: the agents of pretrained/, and what runs left behind
	@exec python -m wm ui

bench: $(VENV)/.dev  ## how fast every part is, next to its peers
	@python -m bench

clean:  ## remove the environment and the scratch folder (never runs/, the cache or the tracking database)
	@test ! -e .wm/up/state.json || { echo "the servers are up: \`make down\` first"; exit 2; }
	rm -rf $(VENV) .wm build *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
