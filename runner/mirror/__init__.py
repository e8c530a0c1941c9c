"""A folder's copy in a bucket: results go up as they are saved, the ledger when the run ends; or later, by itself.

``uploads`` remembers what is up, ``behind`` finds what is not, ``mirror`` brings it there on its ``occasions``, and
tells the ``standing`` of the folder.
"""

from runner.mirror.mirror import Mirror
from runner.mirror.occasions import kept_mirrored, upload_folder, upload_report
from runner.mirror.standing import Standing
from runner.mirror.uploads import UPLOADS

__all__ = ["UPLOADS", "Mirror", "Standing", "kept_mirrored", "upload_folder", "upload_report"]
