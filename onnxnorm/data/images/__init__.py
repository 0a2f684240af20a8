"""Decodes, resizes and preprocesses images into samples of a model's input."""
