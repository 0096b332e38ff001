# `make demo` and `make test` create the environment if it is missing, install into it, and run.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo
CSRC := $(wildcard sifa_zoo/ops/csrc/* tests/ops/cuda_on_cpu/*)

.PHONY: install demo test test-gpu lint format clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "Python 3.10 or later is needed")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

# An interrupted demo goes on where it was. The videos it evaluates on are of another seed than those it trains on and
# chooses the best epoch by.
demo: install
	$(BIN)/sifa-zoo motion-clips $(DEMO)/clips --num-train 640 --num-val 80
	$(BIN)/sifa-zoo motion-clips $(DEMO)/held_out --num-train 8 --num-val 160 --seed 1
	$(BIN)/sifa-zoo finetune $(DEMO)/clips --output $(DEMO)/run --model sifa_net_nano \
		--img-size 48 --num-frames 8 --frame-stride 4 --no-hflip --crop-scale 0.7 \
		--epochs 22 --batch-size 16 --opt muon --lr 0.02 --weight-decay 0.01 \
		$(if $(wildcard $(DEMO)/run/config.json),--resume)
	$(BIN)/sifa-zoo eval $(DEMO)/run $(DEMO)/held_out --num-clips 3 --output $(DEMO)/results
	$(BIN)/sifa-zoo predict $(DEMO)/held_out/val/clockwise/0000.mp4 --model $(DEMO)/run --picture $(DEMO)/prediction.png
	@echo "weights:    $(DEMO)/run/best.safetensors"
	@echo "curve:      $(DEMO)/run/curve.png"
	@echo "report:     $(DEMO)/results/report.html"
	@echo "prediction: $(DEMO)/prediction.png"

test: install lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto

test-gpu: install
	FAIL_WITHOUT_CUDA=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --gpu --numprocesses 4

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CSRC)

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i $(CSRC)

clean:
	rm -rf $(VENV) $(DEMO) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
