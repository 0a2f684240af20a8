"""Images: decoding, resizing, and preprocessing into samples of a model's input."""
