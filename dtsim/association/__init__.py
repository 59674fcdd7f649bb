"""Large timescale: which base station serves which mobile user (P2)."""

__all__ = ["annealing", "branch_and_bound", "cpsat", "greedy", "instances", "milp", "problem", "strongest"]
