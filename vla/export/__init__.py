"""Policies as ONNX files, and the ONNX Runtime engine that runs them on a CPU."""
