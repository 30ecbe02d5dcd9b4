"""Plain, slow twins of the fast paths, written for reading."""
