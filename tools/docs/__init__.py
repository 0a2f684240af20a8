"""Writing the generated parts of the documentation."""
