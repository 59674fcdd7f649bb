"""The data of the users and the learning of their models: data sets, drift, models and training."""

__all__ = [
    "continual",
    "curve",
    "features",
    "flops",
    "learners",
    "models",
    "pretraining",
    "prior",
    "probe",
    "resnet",
    "stacked",
    "training",
]
