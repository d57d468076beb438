"""ONNX, for onnxruntime and what builds on it."""
