//! ONNX graphs to .tflite.
