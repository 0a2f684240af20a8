"""The page: one HTML file with plots and tables."""
