"""Reads images in archives (`.tar`, `.tar.gz`, `.zip`) as they stand: nothing is unpacked to disk."""
