# Each target creates what it needs. PYTHON chooses the interpreter, PHOTOS the photographs of `make vgg16`, EXTRAS what
# the tests find installed: tests of an extra that is missing skip with a reason. TORCH_PYTHON is an interpreter that has
# PyTorch, for the hook script that `make bench` compares with. SECONDS is how long `make fuzz` takes.

PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= test
PHOTOS ?= models/images
SECONDS ?= 60
BIN := $(VENV)/bin
# One process more than there are processors, because many tests wait for others.
WORKERS := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

.PHONY: help demo test check dist fuzz soak fetch vgg16 bench docs clean

help: ## Show this list.
	@grep -E '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	@touch $@

$(VENV)/.check: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --editable '.[check]'
	@touch $@

demo: $(VENV)/.installed ## Normalize the embedded network on the embedded photographs.
	@mkdir -p build/demo
	$(BIN)/onnxnorm normalize models/demo_vgg.onnx models/images --preset unit -o build/demo/normalized.onnx

test: $(VENV)/.test ## Run all tests.
	$(BIN)/python -m pytest -q -n $(WORKERS) --maxprocesses 4 --dist loadfile

check: $(VENV)/.check ## Run the linters and the type checker.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

dist: $(VENV)/.installed ## Build the wheel and the source archive, check what is in them, run the demo from the wheel.
	$(BIN)/python -m pip install --quiet --editable '.[dist]'
	$(BIN)/python -m tools.checks.package

fuzz: $(VENV)/.test ## Damage inputs at random for SECONDS; cases that fail are kept in build/fuzz.
	$(BIN)/python -m tools.fuzz.run --seconds $(SECONDS)

soak: $(VENV)/.installed ## Calibrate on a million images and two million rows, on Linux: memory, descriptors, every bit.
	$(BIN)/python -m tools.measurements.soak

fetch: $(VENV)/.installed ## Fetch the real VGG-16 into build/models.
	$(BIN)/python -m tools.models.fetch

vgg16: fetch ## Fetch the real VGG-16 and normalize it on PHOTOS.
	@mkdir -p build/vgg16
	$(BIN)/onnxnorm calibrate build/models/vgg16_features.onnx $(PHOTOS) --preset caffe -o build/vgg16/features.safetensors
	$(BIN)/onnxnorm rewrite build/models/vgg16_features.onnx --stats build/vgg16/features.safetensors --outputs scale \
		-o build/vgg16/features-normalized.onnx
	$(BIN)/onnxnorm verify build/models/vgg16_features.onnx build/vgg16/features-normalized.onnx $(PHOTOS) \
		--preset caffe --limit 8
	$(BIN)/onnxnorm normalize build/models/vgg16_full.onnx $(PHOTOS) --preset unit --resize squash \
		-o build/vgg16/full-normalized.onnx

bench: $(VENV)/.test fetch ## Measure speed and memory side by side; writes docs/benchmarks.md.
	$(BIN)/python -m tools.models.full_vgg
	$(BIN)/python -m tools.benchmarks.run $(if $(TORCH_PYTHON),--torch-python $(TORCH_PYTHON))

docs: $(VENV)/.installed ## Write the generated pages again, and build the documentation as a site in build/site.
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/python -m tools.docs.operators
	$(BIN)/python -m tools.docs.commands
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --config-file tools/docs/mkdocs.yml

clean: ## Remove everything that was made.
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
