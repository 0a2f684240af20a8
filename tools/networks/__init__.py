"""Current architectures, exported to ONNX with random weights, for tables over many networks."""
