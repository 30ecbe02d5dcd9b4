"""The harness: tasks, the training loop, measuring, records and tables. Knows nothing of the backbones."""
