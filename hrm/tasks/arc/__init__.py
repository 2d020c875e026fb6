"""ARC-AGI: few demonstrations of a rule, by which a grid is to be changed."""
