"""One self-contained HTML page that tells what happened in a folder. Needs the extra ``report``."""
