"""Figures and a page, of the numbers that the tables have."""
