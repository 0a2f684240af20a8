"""Arrays on disk (`.npy`, `.npz`), and whether arrays fit the inputs of a model."""
