"""Inference: load a checkpoint once, solve many puzzles."""

from hrm.inference.solver import Solution, Solver, Trace

__all__ = ["Solution", "Solver", "Trace"]
