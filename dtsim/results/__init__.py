"""What a run leaves behind, the only seam between running and reading: columns, rows, their summary, files."""
