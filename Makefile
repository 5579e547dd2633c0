# Every verb a person needs. `make demo` and `make test` prepare what they use by themselves.
PYTHON ?= python3
# Where this is set, every program that the tests start would compile Outgate anew.
unexport PYTHONDONTWRITEBYTECODE
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo dev test fuzz check format bench docs lock packages clean

demo: $(VENV)/.runtime
	@$(BIN)/outgate demo

dev: $(VENV)/.runtime
	$(BIN)/outgate dev

test: $(VENV)/.dev packages
	$(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder

# Each harness under Atheris, with its seeds; RUNS=1000000 for a night, `python fuzz/NAME.py CORPUS` for one.
RUNS ?= 10000
fuzz: $(VENV)/.dev
	@for harness in fuzz/[a-z]*.py; do echo $$harness; $(BIN)/python $$harness -runs=$(RUNS) -verbosity=0 || exit 1; done

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements/runtime.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install -q --require-hashes -r requirements/runtime.txt -r requirements/build.txt
	$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.runtime
	$(BIN)/pip install -q --require-hashes -r requirements/dev.txt
	@touch $@

docs: $(VENV)/.runtime
	$(BIN)/python docs/draw.py

packages:
	@sh tests/packages.sh

# PEERS=postfix runs these beside Outgate and holds the ratios against their limits; PEERS=haproxy measures the egress,
# PEERS=mailer what a mail costs its application.
bench: $(VENV)/.runtime
	@$(BIN)/python bench/run.py --peers "$(PEERS)"

lock: $(VENV)/bin/python
	$(BIN)/pip install -q uv
	cd requirements && for f in build runtime dev; do ../$(BIN)/uv pip compile -q --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command 'make lock' --universal --python-version 3.11 $$f.in -o $$f.txt; done

clean:
	rm -rf $(VENV) build dist .outgate
