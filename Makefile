# Everything happens in .venv; nothing is installed outside of the tree.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# every process has a host network of its own
PARALLEL ?= --numprocesses=auto --maxprocesses=8 --dist=worksteal

.PHONY: demo test test-vm soak lowest example lint types docs bench venv clean python

demo: $(VENV)/demo.stamp
	$(BIN)/python examples/demo.py

test: $(VENV)/test.stamp
	$(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

# what needs more than this machine's kernel has, in a guest
test-vm: $(VENV)/test.stamp
	tests/vm/setup
	CNM_TEST_ALL_FEATURES=1 PYTHONDONTWRITEBYTECODE=1 tests/vm/run \
		$(BIN)/python -m pytest -p no:cacheprovider -m needs $(PYTEST_ARGS) \
		$$(grep -rlE '^from .*\bfeatures\b' tests --include='test_*.py')

# the tests with the lowest versions of all dependencies
lowest: | python
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/pip install --quiet --disable-pip-version-check \
		--constraint tests/lowest.txt --editable '.[test]'
	$(VENV)-lowest/bin/python -m pytest $(PARALLEL) $(PYTEST_ARGS) $(LOWEST)

# random operations, with other seeds each time, for so many minutes
MINUTES ?= 10
soak: $(VENV)/test.stamp
	end=$$(($$(date +%s) + 60 * $(MINUTES))); while [ $$(date +%s) -lt $$end ]; do \
		seed=$$(od -An -N4 -tu4 /dev/urandom | tr -d ' '); echo "seed $$seed"; \
		CNM_TEST_MACHINE_SEED=$$seed $(BIN)/python -m pytest -q -s \
			tests/integration/machine || exit 1; \
	done

# a driver of somebody else's, beside cnm as it is installed by others
example: | python
	$(PYTHON) -m venv $(VENV)-example
	$(VENV)-example/bin/pip install --quiet --disable-pip-version-check \
		'.[test]' './examples/cnm-driver-example[test]'
	cd examples/cnm-driver-example && \
		$(CURDIR)/$(VENV)-example/bin/python -m pytest -p no:cacheprovider

lint: $(VENV)/lint.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/lint.stamp $(VENV)/test.stamp
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	cd docs && PATH=$(CURDIR)/$(BIN):$$PATH pyright --ignoreexternal --verifytypes cnm

docs: $(VENV)/docs.stamp
	$(BIN)/sphinx-build -W -n -q -b html docs docs/_build/html

# against the kernel's floor, and against what else is installed
BENCH ?= join
bench: $(VENV)/bench.stamp
	$(BIN)/python -m benchmarks $(BENCH)

# what all of the above need but for the benchmarks, in less time than one by one
venv: | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[lint,test,docs]'
	touch $(foreach it,demo lint test docs,$(VENV)/$(it).stamp)

clean:
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-example build dist docs/_build .mypy_cache .pytest_cache .ruff_cache

python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "cnm needs Python 3.11 or later, and '$(PYTHON)' is not: install it" \
			"(Debian 12: apt install python3), or name it: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "'$(PYTHON)' has no venv module: install it" \
			"(Debian: apt install python3-venv)" >&2; exit 1; }

$(BIN)/python: | python
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/%.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$*]'
	touch $@
