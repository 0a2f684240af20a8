"""What `tools/benchmarks/run.py` measures, one module a section, and how it measures."""
