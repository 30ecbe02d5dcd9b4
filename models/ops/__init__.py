"""Functions of tensors that several mechanisms are made of, and that know no contract of a layer."""
