"""Models without attention, whose accuracies stand beneath the tables."""
