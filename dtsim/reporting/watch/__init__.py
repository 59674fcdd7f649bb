"""A run as a moving picture: one page without network, or a GIF or MP4 file."""

__all__ = ["command"]
