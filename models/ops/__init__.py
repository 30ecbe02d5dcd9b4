"""Functions of tensors that several mechanisms share. They know no contract of a layer."""
