"""Fetching and making networks."""
