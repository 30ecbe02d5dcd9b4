"""The backbones: one encoder, and one attention mechanism a file. Plain PyTorch; knows nothing of the harness."""
