"""Reads arrays on disk (`.npy`, `.npz`), and checks whether arrays fit the inputs of a model."""
