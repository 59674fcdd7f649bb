"""P3 as Gymnasium environments, single and batched."""
