"""One file that people look at: a chronicle and its pictures as a page that needs nothing else."""

from runner.page.writing import write

__all__ = ["write"]
