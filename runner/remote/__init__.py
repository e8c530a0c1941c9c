"""A bucket, or another place by its URL: the one room that touches fsspec.

``store`` moves files and looks whether they arrived whole; ``places`` says what is such a URL, and where on this
machine its state is worked on.
"""

from runner.remote.places import is_remote, problem_of, working_folder
from runner.remote.store import Entry, RemoteError, Store

__all__ = ["Entry", "RemoteError", "Store", "is_remote", "problem_of", "working_folder"]
