"""Finding files: which there are below a folder or a URI, in which order, and what identifies them."""
