"""PyTorch modules, normalized in place: `onnxnorm.torch.normalize_(module, images)`.

The module is exported to ONNX in memory, calibrated and rewritten there, and the constants that changed are put back
into its own parameters, by name. PyTorch is imported when the function runs, not with this package (extra `torch`).
"""

from onnxnorm.torch.normalize import Normalized, normalize_

__all__ = ["Normalized", "normalize_"]
