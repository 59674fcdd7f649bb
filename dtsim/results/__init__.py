"""The results of a run, the only interface between simulation and reporting: columns, rows, summary, files."""

__all__ = ["files", "folders", "formats", "names", "queue_columns", "records", "schema", "seal", "summary"]
