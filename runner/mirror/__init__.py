"""A folder's copy in a bucket: results go up as they are saved, the ledger when the run ends; or later, by itself.

``uploads`` remembers what is up, ``behind`` finds what is not, ``mirror`` brings it there.
"""

from runner.mirror.mirror import Mirror, Standing, kept_mirrored, upload_folder, upload_report
from runner.mirror.uploads import UPLOADS

__all__ = ["UPLOADS", "Mirror", "Standing", "kept_mirrored", "upload_folder", "upload_report"]
