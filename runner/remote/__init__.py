"""A bucket, or another place by its URL: the one room that touches fsspec.

``store`` moves files and looks whether they arrived whole; ``places`` says what is such a URL, and where on this
machine its state is worked on. ``folder`` is an output folder there: ``held`` are its results on their way, ``state``
and ``mirror`` bring its ledger and the like here and there, ``lease`` lets one run have it.
"""

from runner.remote.folder import Far, FarFolder, Folder, far_folder, folder_at, folder_of, run_elsewhere, url_at
from runner.remote.held import Held
from runner.remote.places import is_remote, problem_of, working_folder
from runner.remote.store import Entry, RemoteError, Store

__all__ = [
    "Entry",
    "Far",
    "FarFolder",
    "Folder",
    "Held",
    "RemoteError",
    "Store",
    "far_folder",
    "folder_at",
    "folder_of",
    "is_remote",
    "problem_of",
    "run_elsewhere",
    "url_at",
    "working_folder",
]
