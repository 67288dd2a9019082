# `make help` lists the targets. Needs git, make, python3 (3.11 or later) and python3-venv.

NODES ?= 3
JOBS ?= logical
PYTHON ?= python3
export PYTHON

BIN := .venv/bin
QUICK := $(addprefix tests/,common/test_access.py common/test_frames.py common/test_routes.py common/test_legacy.py \
	common/test_procfile.py common/http/test_gate.py gafferd/test_reload.py lookupd/test_changes.py)
SPHINX := $(BIN)/sphinx-build --quiet --fresh-env --fail-on-warning --keep-going docs docs/_build/html

# Expanded when a recipe runs. $(error) prints one line and make exits with 2.
require = $(eval missing := $(shell PYTHON='$(PYTHON)' tools/venv.sh check))$(if $(missing),$(error $(missing)))

.PHONY: help demo test faults pure coverage check format docs venv version release clean

help:
	@echo 'make demo             run a lookupd and 3 nodes on this machine and show the location of jobs; stop with Ctrl-C'
	@echo 'make demo NODES=5     ... with 5 nodes'
	@echo 'make demo ONCE=1      ... start, check, kill a process and a node, report, exit'
	@echo 'make test             run all tests, one worker per core; JOBS=1 for one worker, ARGS="tests/common -k slot" for a selection'
	@echo 'make faults           run the slow tests: network and host faults, long runs; print figures; needs root'
	@echo 'make pure             run the tests marked as pure on Python 3.12 and 3.13, if installed'
	@echo 'make coverage         measure branch coverage of the quick tests by room; pure rooms need 98 %'
	@echo 'make check            check format, lint, spelling, types, import directions and documentation'
	@echo 'make format           format the code and apply the fixes of the linter'
	@echo 'make docs             build docs/compatibility.md and docs/_build/html'
	@echo 'make version V=0.7.0  set the version everywhere'
	@echo 'make release          build, check and try source distributions and wheels of the last commit in dist/'
	@echo 'make venv             create .venv with the requirements of all targets'
	@echo 'make clean            remove .venv, caches and build products'
	@echo 'make PYTHON=python3.12 ...   use another interpreter'

demo:
	$(require)
	@tools/venv.sh
	@exec $(BIN)/python examples/demo.py --nodes $(NODES) $(if $(filter-out 0,$(ONCE)),--once)

venv:
	$(require)
	@tools/venv.sh tests

test: venv
	@$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

faults: venv
	@$(BIN)/pytest -m faults -rP $(ARGS)

pure:
	$(require)
	@tools/pure.sh $(ARGS)

# The files marked as pure, and those whose tests of pure rooms need a loop or a file.
coverage: venv
	@$(BIN)/coverage run -m pytest -q $$(grep -rl --include='test_*.py' pytest.mark.pure tests) $(QUICK)
	@$(BIN)/python tools/room_coverage.py

check: venv
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(SPHINX)

docs: venv
	$(BIN)/python tools/compatibility.py
	$(SPHINX)

format: venv
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

version: venv
	$(BIN)/python tools/metadata.py $(V)

release: venv
	$(BIN)/python tools/release.py

clean:
	rm -rf .venv .venv-3.* dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	rm -rf */build */dist */src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
