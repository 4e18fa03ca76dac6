"""Where objects are over time: `Tracks`, its files, and the joining of windows."""

from molmopoint.tracks.table import Tracks
from molmopoint.tracks.track import Track, TrackPoint

__all__ = ["Track", "TrackPoint", "Tracks"]
