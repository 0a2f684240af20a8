"""Engines run a calibration in this process (`local`) or on a cluster (`ray`)."""
