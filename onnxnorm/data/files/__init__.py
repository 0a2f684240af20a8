"""Finds the files below a folder or a URI, puts them in order, and identifies them."""
