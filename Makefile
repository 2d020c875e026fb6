# make quickstart [SIZE=4x4|6x6|9x9] [SEED=0]   build a data set, train, evaluate, watch a puzzle
# make test                                     lint, types, all tests
# make bench                                    speed and memory of everything, against this machine's limits
PYTHON ?= python3
SIZE ?= 4x4
SEED ?= 0

BIN := .venv/bin
DATA := data/quickstart-$(SIZE)-seed$(SEED)
RUN := checkpoints/quickstart/$(SIZE)-seed$(SEED)
BOX_4x4 := 2x2
BOX_6x6 := 2x3
BOX_9x9 := 3x3
BENCH_SIZE := 6x6
BENCH_RUN := checkpoints/quickstart/$(BENCH_SIZE)-seed0
GIVENS_4x4 := 4-7
GIVENS_6x6 := 18
GIVENS_9x9 := 40

.PHONY: quickstart test lint types unit slow bench clean

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check torch -c constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	touch $@

quickstart: .venv/installed
	$(if $(BOX_$(SIZE)),,$(error SIZE=$(SIZE) is unknown; choose 4x4, 6x6 or 9x9))
	$(BIN)/python dataset/build_sudoku_dataset.py --generate $(BOX_$(SIZE)) \
	    --givens $(GIVENS_$(SIZE)) --num-train 1000 --num-test 500 --num-aug 1000 \
	    --identifiers shared --seed $(SEED) --output-dir $(DATA) --overwrite
	$(BIN)/python pretrain.py --config-name quickstart_$(SIZE) data_path=$(DATA) seed=$(SEED) \
	    checkpoint_path=$(RUN) overwrite=true
	$(BIN)/python evaluate.py checkpoint=$(RUN)
	$(BIN)/python report.py $(RUN) --limit 200
	$(BIN)/python solve.py checkpoint=$(RUN) --index 0 --halting max_steps --trace || test $$? = 1
	@echo "Puzzles of yours, in the browser: $(BIN)/python solve.py checkpoint=$(RUN) --serve"

test: lint types unit

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed
	$(BIN)/mypy

unit: .venv/installed
	$(BIN)/pytest -n 2 --dist loadscope

slow: .venv/installed
	$(BIN)/pytest -m slow

bench: .venv/installed
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/techniques.py
	$(BIN)/python evaluate.py checkpoint=$(BENCH_RUN) || $(MAKE) quickstart SIZE=$(BENCH_SIZE) SEED=0
	$(BIN)/python benchmarks/evaluation.py $(BENCH_RUN)
	$(BIN)/python benchmarks/solving.py $(BENCH_RUN)
	$(BIN)/python benchmarks/serving.py $(BENCH_RUN)
	$(BIN)/python benchmarks/startup.py --solve $(BENCH_RUN)
	$(BIN)/python benchmarks/builder.py
	$(BIN)/python benchmarks/loader.py

clean:
	rm -rf .venv data/quickstart-* checkpoints/quickstart
