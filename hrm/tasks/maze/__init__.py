"""Mazes: rules, symmetries, and data sets of them."""
