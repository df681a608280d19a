# make demo: set up and run the main job on embedded data and an embedded model
# make test: set up and pass the tests

PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin

VENV_LMMS  ?= .venv-lmms
LMMS_NEEDS  = accelerate datasets evaluate httpx hypothesis jinja2 jsonlines loguru openpyxl pillow pytablewriter \
	pytest python-dotenv pyyaml sacrebleu scikit-learn scipy tenacity tqdm-multiprocess transformers

VENV_TV ?= .venv-tv

VENV_TRL ?= .venv-trl

.PHONY: setup demo test test-lmms test-trl test-tv bench bench-engine bench-harness bench-startup bench-sft check format clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: setup
	$(BIN)/prh eval --model oracle,pixels,blind,tiny --task vstar-mini --out runs/demo
	@echo; echo "Runs: runs/demo   Look at one: $(BIN)/prh show runs/demo/vstar-mini-pixels direct_attributes/0000"

test: setup
	$(BIN)/python -m pytest -n 2 -q

# What the installed lmms-eval makes of the same replies; in an environment of its own, since its pins clash with ours.
test-lmms: $(VENV_LMMS)/.ready
	$(VENV_LMMS)/bin/python -m pytest -q -p no:cacheprovider tests/lmms

$(VENV_LMMS)/.ready: constraints-lmms.txt
	$(PYTHON) -m venv $(VENV_LMMS)
	$(VENV_LMMS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-lmms.txt torch $(LMMS_NEEDS)
	$(VENV_LMMS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-lmms.txt --no-deps lmms-eval
	$(VENV_LMMS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

# Videos shown whole, which needs torchvision. What the package index holds of it fits its CUDA torch alone, so that
# pair has an environment of its own, some 6 GB; no GPU is needed.
test-tv: $(VENV_TV)/.ready
	$(VENV_TV)/bin/python -m pytest -q -p no:cacheprovider tests/tv

$(VENV_TV)/.ready: pyproject.toml constraints-tv.txt
	$(PYTHON) -m venv $(VENV_TV)
	$(VENV_TV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-tv.txt \
		-e ".[hf,video]" hypothesis pytest torchvision
	touch $@

# Our SFT trainer against TRL's: the same losses, and the time of a step.
test-trl: $(VENV_TRL)/.ready
	$(VENV_TRL)/bin/python -m pytest -q -p no:cacheprovider tests/trl

# What a sample costs: see docs/performance.md. One thread; each prints a table, and JSON=FOLDER keeps the figures.
bench: bench-engine bench-harness bench-startup

bench-engine bench-harness bench-startup: bench-%: setup
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore tests/benchmarks/bench_$*.py $(if $(JSON),--json $(JSON)/$*.json)

bench-sft: $(VENV_TRL)/.ready
	OMP_NUM_THREADS=1 $(VENV_TRL)/bin/python tests/benchmarks/bench_sft.py

$(VENV_TRL)/.ready: pyproject.toml constraints-trl.txt
	$(PYTHON) -m venv $(VENV_TRL)
	$(VENV_TRL)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-trl.txt \
		-e ".[train]" hypothesis pytest trl
	touch $@

check: setup .typing/prh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=.typing $(BIN)/mypy -p prh

# The root is the package, so a type checker needs a folder in which it has its name.
.typing/prh:
	mkdir -p .typing && ln -sfn .. .typing/prh

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(VENV_LMMS) $(VENV_TRL) $(VENV_TV) .typing build *.egg-info .pytest_cache .mypy_cache .ruff_cache runs
