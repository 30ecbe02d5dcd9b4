"""Doing one run: from a configuration to a record."""
