"""The digital twin: its store, predictions, beliefs and generated data, eqs. (8), (9), (14), (15)."""
