"""Reports: tables, statistics, figures and pages from the files of `dtsim.results`, never from the simulator.

`runs.load(path)` gives one row a run; `statistics.aggregate`, `paired` and `breakouts` work on such rows.
"""

__all__ = [
    "along",
    "command",
    "comparison",
    "finished",
    "lengths",
    "passing",
    "plots",
    "run_table",
    "runs",
    "settings",
    "statistics",
    "style",
    "tiles",
]
