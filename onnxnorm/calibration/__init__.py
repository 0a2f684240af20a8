"""Measures the filters of a model: the job, the probe, and the engines that run the probe on batches."""
