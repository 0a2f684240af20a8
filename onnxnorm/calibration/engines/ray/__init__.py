"""Calibration on a Ray cluster: its workers list the data, read it, and return moments.

`engine` connects, `executor` lists, `chunks` cuts the samples up, `pool` hands them out and survives losses, and
`worker` is what runs elsewhere.
"""
