"""The digital twin: what it keeps, predicts, believes and generates, eqs. (8), (9), (14), (15)."""
