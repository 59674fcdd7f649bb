"""The data of the users and the learning of their models: data sets, drift, models and training."""
