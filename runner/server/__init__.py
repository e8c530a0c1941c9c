"""The reference generation server: the 404 splat contract with a real, small image-to-3D method on the CPU.

An extra (``multiport-runner[server]``); it imports nothing of the runner.
"""

from runner.server.app import build_app, serve

__all__ = ["build_app", "serve"]
