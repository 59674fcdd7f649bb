"""From a command line to jobs, from a job to its results."""
