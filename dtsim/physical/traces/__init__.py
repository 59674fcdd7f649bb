"""Streets, sites, gains and traffic of one's own, read from files that other tools write."""

__all__ = ["gains", "mobility", "sites", "traffic"]
