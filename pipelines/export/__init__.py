"""Making a phone-sized model: ONNX, int8 and its remedies."""
