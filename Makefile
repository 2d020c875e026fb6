# make quickstart [SIZE=4x4|6x6|9x9] [SEED=0]   install, build a data set, train, evaluate, watch a puzzle
# make quickstart TASK=maze|arc [SEED=0]        the same with mazes, or with made-up tasks in ARC's form
# make pretrained                               trains the models of the package again, hours (MODELS=sudoku-4x4: one)
# make test                                     lint, types, all tests
# make docs                                     the documentation site, into site/
# make bench                                    speed and memory of everything, against this machine's limits
PYTHON ?= python3
TASK ?= sudoku
SIZE ?= 4x4
SEED ?= 0

BIN := .venv/bin
KIND := $(if $(filter sudoku,$(TASK)),$(SIZE),$(TASK))
DATA := data/quickstart-$(KIND)-seed$(SEED)
RUN := checkpoints/quickstart/$(KIND)-seed$(SEED)
VERSIONS := --num-train 1000 --num-test 500 --num-aug 1000 --identifiers shared
BUILD_4x4 := sudoku --generate 2x2 --givens 4-7 $(VERSIONS)
BUILD_6x6 := sudoku --generate 2x3 --givens 18 $(VERSIONS)
BUILD_9x9 := sudoku --generate 3x3 --givens 40 $(VERSIONS)
BUILD_maze := maze --generate 9x9 --num-train 2000 --num-test 500 --aug
BUILD_arc := arc --generate --num-aug 7
EVALUATE_maze := --halting learned --steps 16 --noise 0.3 --rollouts 16
SOLVE_arc := --votes 8
MODELS ?= sudoku-4x4 sudoku-6x6 sudoku-9x9 maze-9x9
MINIMAL := --givens minimal --num-train 1000 --num-test 500 --num-aug 1000 --identifiers shared
DATA_sudoku-4x4 := sudoku --generate 2x2 $(subst 500,100,$(MINIMAL))
DATA_sudoku-6x6 := sudoku --generate 2x3 $(MINIMAL)
EXTREME := sudoku --generate 3x3 --difficulty like-extreme --num-test 200
DATA_sudoku-9x9-first := $(EXTREME) --num-train 2000 --num-aug 400 --seed 2
DATA_sudoku-9x9 := $(EXTREME) --num-train 8000 --num-aug 100 --seed 3
KEYS_sudoku-9x9-second := load_checkpoint=checkpoints/pretrained/sudoku-9x9-first
KEYS_sudoku-9x9 := load_checkpoint=checkpoints/pretrained/sudoku-9x9-second
PUZZLES_sudoku-9x9-second := sudoku-9x9
DATA_maze-9x9 := $(BUILD_maze)
BENCH_SIZE := 6x6
BENCH_RUN := checkpoints/quickstart/$(BENCH_SIZE)-seed0

PUZZLE_4x4 := .3..1.3...4.4...
PUZZLE_6x6 := 2.6..515....42..5...5..43.254..416.3
PUZZLE_maze := '   \#   \#  \# \# \# \#  \#   \#  G \#\#\#\#\#\#\#  \#     \#  \# \# \# \#  \# \#   \#  \#\#\# \#\#\# S    \#   '
PUZZLE_arc := examples/glow.json
PUZZLE_9x9 := .7.42961...9..3...4....8.732.87.43...4793..853.....7.9.21.46857....8.1...56.974..

# uv downloads and unpacks in parallel; pip where uv is not there, or does not reach what pip reaches.
UV := $(if $(shell command -v uv),uv pip install --quiet --python $(BIN)/python,false)
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --retries 2
INSTALL = install() { echo "install $$*"; $(UV) -c constraints.txt "$$@" 2>/dev/null || \
    $(PIP) -c constraints.txt "$$@"; }; install
# Builds for CPUs where there is no NVIDIA GPU: 0.2 GB instead of several.
CPU_TORCH := $(if $(shell command -v nvidia-smi),,--extra-index-url https://download.pytorch.org/whl/cpu)

# Runs a command, and says how long it took; an exit code of $$ALLOWED is fine, too.
STAGE = stage() { name="$$1"; shift; began=$$(date +%s); echo "$$*"; \
    "$$@" || test $$? = "$$ALLOWED" || exit; echo "--- $$name: $$(($$(date +%s) - began)) s"; }; stage
BEGAN := $(shell date +%s)

.PHONY: quickstart pretrained test lint types unit slow docs bench clean

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	@$(INSTALL) --no-deps torch $(CPU_TORCH)
	@$(INSTALL) -e '.[web]'
	touch $@

.venv/dev-installed: .venv/installed
	@$(INSTALL) -e '.[dev]'
	touch $@

quickstart:
	$(if $(filter sudoku maze arc,$(TASK)),,$(error TASK=$(TASK) is unknown; choose sudoku, maze or arc))
	$(if $(BUILD_$(KIND)),,$(error SIZE=$(SIZE) is unknown; choose 4x4, 6x6 or 9x9))
	@$(STAGE) environment $(MAKE) --no-print-directory .venv/installed
	@$(STAGE) data $(BIN)/hrm build $(BUILD_$(KIND)) --seed $(SEED) --output-dir $(DATA) --overwrite
	@$(STAGE) training $(BIN)/hrm train $(DATA) --config-name quickstart_$(KIND) seed=$(SEED) \
	    checkpoint_path=$(RUN) overwrite=true
	@$(STAGE) evaluation $(BIN)/hrm evaluate $(RUN) $(EVALUATE_$(KIND))
	@$(STAGE) report $(BIN)/hrm report $(RUN) --limit 200
	@ALLOWED=1; $(STAGE) "one puzzle" \
	    $(BIN)/hrm solve $(RUN) --index 0 --halting max_steps $(SOLVE_$(KIND)) --trace
	@echo "--- total: $$(($$(date +%s) - $(BEGAN))) s"
	@echo
	@echo "Next: solve your own puzzle, open the page, train the 9x9 (18 minutes of one core with AVX2)"
	@echo "    $(BIN)/hrm solve $(RUN) $(PUZZLE_$(KIND)) --trace"
	@echo "    $(BIN)/hrm serve $(RUN)"
	@echo "    make quickstart SIZE=9x9"

pretrained: $(MODELS:%=pretrained-%)

pretrained-%: pretrained-stage-%
	$(BIN)/hrm export checkpoints/pretrained/$* --output-dir hrm/shipped/$* --dtype float16 \
	    --notes hrm/recipes/pretrained_$(subst -,_,$*).md

# Goes on where it was stopped.
.PRECIOUS: pretrained-stage-%
pretrained-stage-%: PUZZLES = $(or $(PUZZLES_$*),$*)
pretrained-stage-%: .venv/dev-installed
	test -d data/pretrained/$(PUZZLES) || \
	    $(BIN)/hrm build $(DATA_$(PUZZLES)) --output-dir data/pretrained/$(PUZZLES)
	$(BIN)/hrm train data/pretrained/$(PUZZLES) --config-name pretrained_$(subst -,_,$*) \
	    checkpoint_path=checkpoints/pretrained/$* resume=auto $(KEYS_$*)

pretrained-stage-sudoku-9x9-second: pretrained-stage-sudoku-9x9-first
pretrained-stage-sudoku-9x9: pretrained-stage-sudoku-9x9-second

test: lint types unit

lint: .venv/dev-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/dev-installed
	$(BIN)/mypy

# Three at a time on two cores: tests wait a third of their time.
unit: .venv/dev-installed
	$(BIN)/pytest -n 3 --dist loadscope --durations 20

slow: .venv/dev-installed
	$(BIN)/pytest -m slow

docs: .venv/dev-installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: .venv/dev-installed
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/techniques.py
	$(BIN)/hrm evaluate $(BENCH_RUN) || $(MAKE) quickstart SIZE=$(BENCH_SIZE) SEED=0
	$(BIN)/python benchmarks/evaluation.py $(BENCH_RUN)
	$(BIN)/python benchmarks/solving.py $(BENCH_RUN)
	$(BIN)/python benchmarks/serving.py $(BENCH_RUN)
	$(BIN)/python benchmarks/startup.py --solve $(BENCH_RUN)
	$(BIN)/python benchmarks/builder.py
	$(BIN)/python benchmarks/loader.py

clean:
	rm -rf .venv data/quickstart-* checkpoints/quickstart
