"""Numbered markers, labels and heatmaps on pictures, with nothing but Pillow; and writing pictures to files."""

from molmopoint.drawing.colours import colour_of
from molmopoint.drawing.heatmaps import draw_heatmap
from molmopoint.drawing.markers import STYLES, check_style, largest_radius, marker_radius
from molmopoint.drawing.pages import Labels, draw_points, draw_title, enlarged, phrases_of
from molmopoint.drawing.picture_files import picture_endings, write_picture

__all__ = [
    "STYLES",
    "Labels",
    "check_style",
    "colour_of",
    "draw_heatmap",
    "draw_points",
    "draw_title",
    "enlarged",
    "largest_radius",
    "marker_radius",
    "phrases_of",
    "picture_endings",
    "write_picture",
]
