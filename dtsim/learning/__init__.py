"""What the users see and how their models learn: data sets, drift, models and training."""
