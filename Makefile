# Every command a developer types. `make help` lists them; `.ci/run` calls `make ci`.

VENV := .venv
PY := $(VENV)/bin/python
PYTHON ?= python3
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
SOURCES := $(shell find crates -name '*.rs' -o -name 'Cargo.toml' -o -name '*.c') Cargo.toml Cargo.lock pyproject.toml

.DEFAULT_GOAL := help
.PHONY: help demo test build test-rust test-py test-system kill prop fuzz fuzz-smoke loom lint fmt types docs bench bench-smoke campaign campaign-smoke \
	portable vectors ci pins clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: build ## record four faulty radar streams and print the reconciliation
	$(VENV)/bin/tapeline demo

test: test-rust test-py ## run all tests

$(VENV)/.deps: pyproject.toml constraints.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		click numpy pyarrow rich pandas polars duckdb matplotlib \
		hypothesis import-linter maturin mypy pandas-stubs pybcsv pytest pytest-randomly pytest-timeout ruff zensical
	touch $@

$(VENV)/.built: $(VENV)/.deps $(SOURCES)
	VIRTUAL_ENV=$(abspath $(VENV)) $(VENV)/bin/maturin develop --release --quiet
	touch $@

build: $(VENV)/.built ## make .venv and build the package into it

test-rust: ## unit, property and conformance tests of the crates
	cargo test --workspace --exclude tapeline-py --quiet

test-py: build ## tests of the package, with real processes and sockets
	$(PY) -m pytest

test-system: build ## only the tests that run whole processes
	$(PY) -m pytest tests/system

kill: build ## kill 600 recorders, 200 register servers and 3,000 writers, and fail and cut off every disk call
	TAPELINE_BCSV_KILLS=200 $(PY) -m pytest tests/system/test_bcsv_kill.py
	TAPELINE_KILLS=600 $(PY) -m pytest tests/system/test_kill.py
	TAPELINE_REGISTER_KILLS=200 $(PY) -m pytest tests/system/test_register_kill.py
	TAPELINE_HOSTILE_CONNECTIONS=10000 $(PY) -m pytest tests/system/test_register_server.py -k hostile --timeout 600
	TAPELINE_MODEL=full cargo test --release -p tapeline-capture --lib --quiet model_tests

prop: build ## property tests with many cases
	PROPTEST_CASES=20000 cargo test --release --workspace --exclude tapeline-py --quiet prop
	TAPELINE_TEST_EXAMPLES=5000 $(PY) -m pytest tests/properties tests/interop --timeout 3600

fuzz: $(VENV)/.deps ## run every fuzz target for ten minutes, with the stable compiler
	$(PY) fuzz/run.py

fuzz-smoke: $(VENV)/.deps ## run every fuzz target for half a minute
	$(PY) fuzz/run.py --seconds 30 --seed 1

campaign: build ## a million damaged files for each Python entry point of tapeline.bcsv
	$(PY) fuzz/python_faces.py --inputs 1000000

campaign-smoke: build ## the same with a few thousand
	$(PY) fuzz/python_faces.py --inputs 10000

# Each runs although one before it failed; the failures are named at the end.
define benches
	@failed=""; for bench in $(1); do \
		echo "$(PY) benches/bench_$$bench"; $(PY) benches/bench_$$bench || failed="$$failed bench_$${bench%% *}"; \
	done; test -z "$$failed" || { echo "below a floor or failed:$$failed"; exit 1; }
endef

bench: build ## measure everything against rivals; fails at the end if anything is below its floor
	$(call benches,record.py registers.py tools.py bcsv.py "bcsv.py targets --threads 1" "bcsv.py report")

bench-smoke: build ## the same, small and lax: do inputs, outputs and ratios work
	$(call benches,"record.py --smoke" "registers.py --smoke" "tools.py --smoke" "bcsv.py --smoke")

loom: ## model-check the ring
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test -p tapeline-ring --release --test loom

portable: ## the paths of machines and systems other than this one, on this one
	RUSTFLAGS="--cfg tapeline_portable" CARGO_TARGET_DIR=target/portable cargo test --quiet -p tapeline-crc -p tapeline-sys -p tapeline-ring -p tapeline-wire

lint: $(VENV)/.deps ## formatting, lints, import rules
	for workspace in . fuzz benches; do cargo fmt --manifest-path $$workspace/Cargo.toml --all --check; done
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

fmt: $(VENV)/.deps ## format everything
	for workspace in . fuzz benches; do cargo fmt --manifest-path $$workspace/Cargo.toml --all; done
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

types: build ## mypy, stubtest, import layers
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy --strict tests/typing examples
	$(PY) -m mypy.stubtest tapeline._native --allowlist tests/typing/stubtest-allowlist.txt
	PYTHONPATH=python $(VENV)/bin/lint-imports

docs: build ## compare the generated pages, then build the site into site/
	$(PY) docs/generate.py --check
	$(VENV)/bin/zensical build --clean --strict

vectors: build ## only the conformance vectors, from Rust and from Python
	cargo test --workspace --exclude tapeline-py --quiet vector
	$(PY) -m pytest tests/conformance

clean: ## remove what was built
	rm -rf target $(VENV) site fuzz/target benches/target

pins: $(VENV)/.deps ## renew constraints.txt from what is installed
	$(PY) -m pip freeze --exclude tapeline > constraints.txt

ci: lint test types docs loom portable fuzz-smoke campaign-smoke bench-smoke ## what CI runs
