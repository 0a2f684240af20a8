"""What compare_peers.py runs: small graphs, and one adapter for each tool that rescales networks."""
