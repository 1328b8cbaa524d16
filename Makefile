# make quickstart: set up, then icbench's first sweep. make test: set up, then the tests. Nothing is needed first but
# Python 3.11 or later with venv, and make. What is set up already is not set up again.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: quickstart test lint format methods gpu lock clean

quickstart: $(READY)
	$(BIN)/icbench sweep sweeps/quickstart.yaml

# Stealing work evens the two processes out (281 s for 328, when there were 2,162 tests); on a cluster it would put heavy
# tests beside those that wait.
test: $(READY)
	$(BIN)/pytest -n 2 --dist $(if $(ICBENCH_REQUIRE_CLUSTER),load,worksteal)

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# docs/methods.md, from the docstrings and docs/results/method-costs.json.
methods: $(READY)
	$(BIN)/python tests/methods.py write

# On a machine with an NVIDIA GPU: every way to do a step against the plain one, then all of them side by side.
gpu: $(READY)
	$(BIN)/pytest -k gpu
	mkdir -p docs/results/bench
	$(BIN)/icbench bench gpu --out docs/results/bench/gpu.json

# Pins every dependency for every platform; addresses of package indexes stay out of it.
lock: $(READY)
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --no-emit-index-url --no-header --upgrade \
		--extra dev pyproject.toml -o requirements.lock

# Compiling all modules once (20 s) spares each later start seconds, also where Python is told not to write bytecode.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "icbench needs Python 3.11 or later; name one: make PYTHON=python3.12 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check "$$(grep -o '^uv==[^ ;]*' requirements.lock)"
	$(BIN)/uv pip install -q --python $(BIN)/python --compile-bytecode -r requirements.lock
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	@touch $(READY)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
