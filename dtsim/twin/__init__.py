"""The digital twin: its store, predictions, beliefs and generated data, eqs. (8), (9), (14), (15)."""

__all__ = ["controls", "distribution", "gaussian", "generative", "generator", "mirror", "predictor", "store", "twin"]
