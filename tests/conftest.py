"""Puts this folder on the path, so that tests share `graphs` and `scales_check`."""
