"""Mazes: rules and symmetries."""
