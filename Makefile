# One line a task. `make up` and `make test` do all their own set-up.
PYTHON ?= python3
BIN := .venv/bin

# Tests that only compute run on two cores; those that watch the clock or start the whole stack, one after another.
COMPUTING := $(addprefix tests/,admin bench cli config core docs edge fleet ledger planning sim telemetry traces)
TIMED := $(addprefix tests/,docs/test_readme.py fleet/test_live.py ledger/test_two_sidecars.py ledger/test_waiting.py \
  telemetry/test_tracing.py)
OTHERS := $(filter-out $(COMPUTING) tests/__pycache__,$(patsubst %/,%,$(wildcard tests/*/)))

.PHONY: setup lock envoy up test test-vllm lint format types protos check clean

setup: .venv/ready
.venv/ready: pyproject.toml requirements.lock
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

lock: setup
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --extra local --extra plan --extra bench --group dev pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --constraints requirements.lock pyproject.toml -o requirements-runtime.lock

up: setup
	$(BIN)/tokenpool up --config tokenpool.yaml

test: setup
	$(BIN)/pytest --numprocesses 2 --dist loadfile $(addprefix --ignore=,$(TIMED)) $(COMPUTING)
	$(BIN)/pytest $(OTHERS) $(TIMED)

test-vllm: setup
	TOKENPOOL_VLLM_URL=$(URL) TOKENPOOL_VLLM_LONG_URL=$(LONG_URL) $(BIN)/pytest -m vllm -s

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

protos: setup
	$(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=. --pyi_out=. protos/extproc/pb/*.proto

# The configuration that compose.yaml mounts; a test says when it is stale.
envoy: setup
	$(BIN)/tokenpool envoy --config envoy/tokenpool.compose.yaml --host 0.0.0.0 --sidecar sidecar:50051 --workers 2 > envoy/envoy.yaml

check: lint test

clean:
	rm -rf .venv
