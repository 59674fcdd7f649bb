"""What every package uses: checked parts, random streams, cache, progress."""

__all__ = [
    "cache",
    "checked",
    "compiled",
    "errors",
    "fields",
    "folders",
    "notebook",
    "parts",
    "progress",
    "rows",
    "seeding",
    "shapes",
    "terminal",
]
