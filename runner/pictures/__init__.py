"""What results look like: thumbnails, models for a 3D view, and what is odd. Needs the extra ``report``."""

from runner.pictures.gallery import gallery
from runner.pictures.records import BLANK, EXPLODED, UNREADABLE, Gallery, Picture, Wanted

__all__ = ["BLANK", "EXPLODED", "UNREADABLE", "Gallery", "Picture", "Wanted", "gallery"]
