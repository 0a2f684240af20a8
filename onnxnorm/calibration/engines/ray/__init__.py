"""Calibration on a Ray cluster: its workers list the data, read it, and return moments.

`engine` connects to the cluster, `executor` lists folders, `chunks` divides the samples into chunks, `pool` sends
chunks to workers and replaces lost workers, and `worker` runs on the cluster.
"""
