"""What every package uses: checked parts, random streams, cache, progress."""
