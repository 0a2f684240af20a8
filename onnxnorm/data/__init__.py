"""From DATA to batches: files are found and listed, images decoded and prepared, arrays read, samples selected.

Nothing here knows what is measured on the batches, or where they go.
"""
