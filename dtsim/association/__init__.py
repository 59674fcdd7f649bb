"""Large timescale: which base station serves which mobile user (P2)."""

__all__ = ["branch_and_bound", "cpsat", "greedy", "problem", "strongest"]
