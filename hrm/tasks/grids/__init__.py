"""Grids of a user's own: read from JSON Lines, several sizes in one canvas. No rules."""
