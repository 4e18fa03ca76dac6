"""Where objects are over time: `Tracks`, its files, and the joining of windows."""

from molmopoint.tracks.table import Track, TrackPoint, Tracks

__all__ = ["Track", "TrackPoint", "Tracks"]
