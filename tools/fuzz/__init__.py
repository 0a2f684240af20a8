"""Fuzzing: what onnxnorm reads is damaged at random; reading it must end in a result or in an OnnxnormError."""
