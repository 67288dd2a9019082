# `make help` lists the targets. Needs git, make, python3 (3.11 or later) and python3-venv.

NODES ?= 3
JOBS ?= logical
PYTHON ?= python3
export PYTHON

BIN := .venv/bin
QUICK := $(addprefix tests/,common/test_access.py common/test_frames.py common/test_routes.py common/test_legacy.py \
	common/test_procfile.py common/http/test_gate.py gafferd/test_reload.py lookupd/test_changes.py)
SPHINX := $(BIN)/sphinx-build --quiet --fresh-env --fail-on-warning --keep-going docs docs/_build/html

# Expanded when a recipe runs. $(error) prints one line and make ends with 2.
require = $(eval missing := $(shell PYTHON='$(PYTHON)' tools/venv.sh check))$(if $(missing),$(error $(missing)))

.PHONY: help demo test faults pure coverage check format docs venv version release clean

help:
	@echo 'make demo             a lookupd and 3 nodes on this machine, and who runs what; Ctrl-C ends it'
	@echo 'make demo NODES=5     ... with 5 nodes'
	@echo 'make demo ONCE=1      ... start, check, kill a process and a node, report, end'
	@echo 'make test             all tests, one worker a core; JOBS=1 for one, ARGS="tests/common -k slot" for some'
	@echo 'make faults           the tests that take minutes: faults of networks and hosts, long runs; prints figures; needs root'
	@echo 'make pure             the tests marked as pure, on Python 3.12 and 3.13 where this machine has them'
	@echo 'make coverage         branch coverage of the quick tests in one process, per room; fails when a pure one has too little'
	@echo 'make check            format, lint, spelling, types, direction of imports, pages without warnings'
	@echo 'make format           format the code and mend what the linter can'
	@echo 'make docs             docs/compatibility.md from the marks of the tests, and docs/_build/html'
	@echo 'make version V=0.7.0  set the version in all places'
	@echo 'make release          source distributions and wheels in dist/, from what is committed: built, checked, tried'
	@echo 'make venv             only make .venv, with all that the targets above need'
	@echo 'make clean            remove .venv, caches and build products'
	@echo 'PYTHON=python3.12 make ...   with another interpreter'

demo:
	$(require)
	@tools/venv.sh
	@exec $(BIN)/python examples/demo.py --nodes $(NODES) $(if $(filter-out 0,$(ONCE)),--once)

venv:
	$(require)
	@tools/venv.sh tests

test: venv
	@$(BIN)/pytest -n $(JOBS) --dist loadfile $(ARGS)

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
