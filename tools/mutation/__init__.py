"""Mutation testing: whether a test fails if the code is wrong."""
