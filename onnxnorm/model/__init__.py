"""ONNX models: opening and writing files, where constants live, shapes, and the graph as the walk reads it."""
