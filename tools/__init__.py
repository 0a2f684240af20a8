"""Tools for the people who work on onnxnorm; run them from the root: `python -m tools.models.fetch`."""
