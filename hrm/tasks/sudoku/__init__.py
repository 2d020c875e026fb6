"""Sudoku: rules, symmetries, difficulty, generator, builder."""
