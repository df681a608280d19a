# make demo: set up and run the main job on embedded data and an embedded model
# make test: set up and pass the tests

PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin

VENV_LMMS  ?= .venv-lmms
LMMS_NEEDS  = accelerate datasets evaluate httpx hypothesis jinja2 jsonlines loguru openai openpyxl pillow pytablewriter \
	pytest python-dotenv pyyaml sacrebleu scikit-learn scipy tenacity tqdm-multiprocess transformers

VENV_TV ?= .venv-tv

VENV_TRL ?= .venv-trl

VENV_VLLM ?= .venv-vllm

VENV_RAY ?= .venv-ray

VENV_LOWEST ?= .venv-lowest

VENV_TRACKERS ?= .venv-trackers

VENV_DEEPSPEED ?= .venv-deepspeed

.PHONY: setup demo example trap test test-deepspeed test-lmms test-lowest test-ray test-trackers test-trl test-tv test-vllm bench bench-client bench-engine bench-gpu bench-grpo bench-lmms bench-harness bench-rounds bench-startup bench-compare bench-report bench-sft controls check format clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

MINIS = vstar-mini,tallyqa-complex-mini,infographicsvqa-mini,mvbench-mini

# One warm start reinforced without curiosity and with it, and the best there is, on the four miniatures.
demo: setup
	$(BIN)/prh eval --model tiny-rl-no-curiosity --task $(MINIS) --out runs/demo/tiny-rl-no-curiosity
	$(BIN)/prh eval --model tiny-rl --task $(MINIS) --out runs/demo/tiny-rl
	$(BIN)/prh eval --model tiny --task $(MINIS) --out runs/demo/tiny
	$(BIN)/prh report runs/demo/tiny-rl-no-curiosity runs/demo/tiny-rl runs/demo/tiny \
		-o runs/demo/report.html -o runs/demo/report.json -o runs/demo/report.md
	@echo; echo "Look at an episode: $(BIN)/prh show runs/demo/tiny/vstar-mini direct_attributes/0000"
	@echo "Report: $(CURDIR)/runs/demo/report.html"

# The report of docs/example with its pictures: two checkpoints on the four miniatures; needs Chromium for the pictures.
BASELINE  ?= tiny-rl-no-curiosity
CANDIDATE ?= tiny-rl
example: setup
	$(BIN)/python docs/example/make.py $(BASELINE) $(CANDIDATE) $(TRAININGS)

# The learning trap: ten reinforcements, two at a time; RUNS="full-0 no-curiosity-0" for some of them.
trap: setup
	$(BIN)/python docs/learning-trap/make.py $(RUNS)

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

# Our trainers against TRL's: the same losses, and the time of a step.
test-trl: $(VENV_TRL)/.ready
	$(VENV_TRL)/bin/python -m pytest -q -p no:cacheprovider tests/trl

# The installed vLLM against what is relied on of it; where there is a GPU its turns, versions of weights in this process
# and from a server, and whole commands. Some 6 GB.
test-vllm: $(VENV_VLLM)/.ready
	$(VENV_VLLM)/bin/python -m pytest -q -p no:cacheprovider tests/vllm

$(VENV_VLLM)/.ready: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VENV_VLLM)
	$(VENV_VLLM)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-vllm.txt \
		-e ".[vllm,train,api]" hypothesis pytest
	touch $@

# The engine and the trainer's losses under the lowest transformers of the range, and what it wants of others.
test-lowest: $(VENV_LOWEST)/.ready
	$(VENV_LOWEST)/bin/python -m pytest -q -n 2 -p no:cacheprovider tests/models tests/training/test_grpo_losses.py \
		tests/training/test_mask.py tests/training/test_layouts.py

LOWEST = $(shell sed -n 's/.*transformers>=\([0-9.]*\),.*/\1/p' pyproject.toml)

$(VENV_LOWEST)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV_LOWEST)
	grep -iv '^\(transformers\|huggingface[_-]hub\|tokenizers\|hf-xet\)==' constraints.txt > $(VENV_LOWEST)/constraints.txt
	$(VENV_LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -c $(VENV_LOWEST)/constraints.txt \
		"transformers==$(LOWEST).*" -e ".[dev]"
	touch $@

# DeepSpeed itself, on a processor; it compiles a part of its own first, which takes a C++ compiler.
test-deepspeed: $(VENV_DEEPSPEED)/.ready
	$(VENV_DEEPSPEED)/bin/python -m pytest -q -p no:cacheprovider tests/deepspeed

$(VENV_DEEPSPEED)/.ready: pyproject.toml constraints.txt constraints-deepspeed.txt
	$(PYTHON) -m venv $(VENV_DEEPSPEED)
	$(VENV_DEEPSPEED)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-c constraints-deepspeed.txt -e ".[dev]" setuptools ninja
	DS_BUILD_OPS=0 DS_ACCELERATOR=cpu $(VENV_DEEPSPEED)/bin/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -c constraints-deepspeed.txt --no-build-isolation deepspeed
	touch $@

# Experiment trackers themselves, offline.
test-trackers: $(VENV_TRACKERS)/.ready
	$(VENV_TRACKERS)/bin/python -m pytest -q -p no:cacheprovider tests/trackers

$(VENV_TRACKERS)/.ready: pyproject.toml constraints-trackers.txt
	$(PYTHON) -m venv $(VENV_TRACKERS)
	$(VENV_TRACKERS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-trackers.txt \
		torch tensorboard trackio wandb hypothesis pytest -e .
	touch $@

# Two workers of a local Ray.
test-ray: $(VENV_RAY)/.ready
	$(VENV_RAY)/bin/python -m pytest -q -p no:cacheprovider tests/ray

$(VENV_RAY)/.ready: pyproject.toml constraints-ray.txt
	$(PYTHON) -m venv $(VENV_RAY)
	$(VENV_RAY)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-ray.txt \
		-e ".[ray]" hypothesis pytest
	touch $@

# What a sample costs: see docs/performance.md. One thread; each prints a table, and JSON=FOLDER keeps the figures.
bench: bench-engine bench-harness bench-rounds bench-startup bench-compare bench-report

bench-engine bench-harness bench-rounds bench-startup bench-compare bench-report: bench-%: setup
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore tests/benchmarks/bench_$*.py $(if $(JSON),--json $(JSON)/$*.json)

# In the shape of a real model, which needs a GPU; ARGUMENTS="--shape tiny" tries the script without one.
bench-gpu: setup
	$(BIN)/python -W ignore tests/benchmarks/bench_gpu.py $(ARGUMENTS) $(if $(JSON),--json $(JSON)/gpu.json)

# Whether answers depend on what crops show.
controls: setup
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore tests/benchmarks/controls.py $(or $(MODEL),tiny)

# The client of a server alone, and against lmms-eval's.
bench-client: $(VENV_LMMS)/.ready
	OMP_NUM_THREADS=1 $(VENV_LMMS)/bin/python -W ignore tests/benchmarks/bench_client.py $(if $(JSON),--json $(JSON)/client.json)

# The same questions through lmms-eval and through ours.
bench-lmms: $(VENV_LMMS)/.ready
	OMP_NUM_THREADS=1 $(VENV_LMMS)/bin/python -W ignore tests/benchmarks/bench_lmms.py $(if $(JSON),--json $(JSON)/lmms.json)

bench-sft: $(VENV_TRL)/.ready
	OMP_NUM_THREADS=1 $(VENV_TRL)/bin/python tests/benchmarks/bench_sft.py

bench-grpo: $(VENV_TRL)/.ready
	OMP_NUM_THREADS=1 $(VENV_TRL)/bin/python -W ignore tests/benchmarks/bench_grpo.py $(if $(JSON),--json $(JSON)/grpo.json)

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
	rm -rf $(VENV) $(VENV_DEEPSPEED) $(VENV_LMMS) $(VENV_LOWEST) $(VENV_RAY) $(VENV_TRACKERS) $(VENV_TRL) $(VENV_TV) $(VENV_VLLM) .typing build *.egg-info .pytest_cache .mypy_cache .ruff_cache runs
