"""Models without attention, to stand beneath the tables."""
