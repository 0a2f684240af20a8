"""What an ONNX file is: opening and writing, constants and where they live, shapes, the graph as the walk reads it."""
