"""`python -m onnxnorm` is the same as `onnxnorm`."""

from onnxnorm.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
