"""Large timescale: which base station serves which mobile user (P2)."""
