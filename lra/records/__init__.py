"""What runs leave: records, curves, predictions."""
