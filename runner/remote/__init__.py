"""A bucket, or another place by its URL: the one room that touches fsspec.

``store`` moves files and looks whether they arrived whole; ``places`` says what is such a URL, and where on this
machine its state is worked on, which ``mark`` tells from other folders. ``folder`` is an output folder there:
``held`` are its results on their way and ``there`` those that have arrived, ``state`` and ``sending`` bring its
ledger and the like here and there, ``lease`` lets one run have it. ``kinds`` says which folder is one.
"""

from runner.remote.folder import FarFolder
from runner.remote.held import Held
from runner.remote.kinds import Folder, far_folder, folder_at, folder_of, run_elsewhere
from runner.remote.mark import url_at
from runner.remote.places import Far, is_remote, problem_of, working_folder
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
