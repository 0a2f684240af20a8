"""What `tools/bench.py` measures, one module a section, and how it measures."""
