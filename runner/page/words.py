"""Say figures as a person reads them, and texts from outside so that nothing in them is hidden."""

from __future__ import annotations

from runner.report import plain

THIN = "\u202f"
"""Stands between a number and its unit, where a line may not break."""


def visible(text: str) -> str:
    """Return a text from outside with its lines kept, and everything else that is not to be seen spelled out.

    >>> print(visible("one\\r\\n\\u202etwo"))
    one
    \\u202etwo
    """
    return "\n".join(plain(line) for line in text.splitlines())


def last_parts(folder: str) -> str:
    """Return the last two parts of a folder's path: one alone is "results" too often.

    >>> last_parts("/data/demo/results/"), last_parts("results"), last_parts("/")
    ('demo/results', 'results', '/')
    """
    return "/".join([part for part in folder.split("/") if part][-2:]) or folder


def number(value: float) -> str:
    """Return a whole number with its thousands apart.

    >>> number(1234567)
    '1,234,567'
    """
    return f"{value:,.0f}"


def figure(value: float) -> str:
    """Return a number with three digits that count.

    >>> [figure(value) for value in (0, 0.00123, 0.1234, 3.456, 34.56, 345.6, 3456.7)]
    ['0', '0.0012', '0.12', '3.46', '34.6', '346', '3,457']
    """
    if not value:
        return "0"
    if value < 10:
        return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
    return f"{value:.1f}" if value < 100 else number(value)


def duration(seconds: float) -> str:
    """Say how long something took, in its two largest units.

    >>> [duration(s).replace(THIN, " ") for s in (0, 0.42, 9.96, 59.6, 61, 7300, 200_000)]
    ['0 s', '0.42 s', '10 s', '1 min 0 s', '1 min 1 s', '2 h 1 min', '2 d 7 h']
    """
    if seconds < 9.95:
        return f"{seconds:.2f}{THIN}s" if seconds >= 0.1 else f"{seconds:.2g}{THIN}s"
    whole = round(seconds)
    for unit, long, smaller, short in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= long:
            return f"{whole // long}{THIN}{unit} {whole % long // short}{THIN}{smaller}"
    return f"{whole}{THIN}s"


def size(many: float) -> str:
    """Say how many bytes something has.

    >>> [size(n).replace(THIN, " ") for n in (0, 999, 1234, 14_000_000, 7.8e9, 1.2e12)]
    ['0 B', '999 B', '1.23 kB', '14.0 MB', '7.80 GB', '1.20 TB']
    """
    if many < 1000:
        return f"{many:.0f}{THIN}B"
    for unit in ("kB", "MB", "GB"):
        many /= 1000
        if many < 1000:
            digits = 2 if many < 10 else 1 if many < 100 else 0
            return f"{many:.{digits}f}{THIN}{unit}"
    return f"{many / 1000:.2f}{THIN}TB"


def percent(share: float) -> str:
    """Return a share as percent: never 100 % or 0 % of what is not all or nothing.

    >>> [percent(share).replace(THIN, " ") for share in (0, 0.001, 0.5, 0.999, 1)]
    ['0 %', '< 1 %', '50 %', '> 99 %', '100 %']
    """
    whole = round(100 * share)
    if whole == 0 and share > 0:
        return f"<{THIN}1{THIN}%"
    if whole == 100 and share < 1:
        return f">{THIN}99{THIN}%"
    return f"{whole}{THIN}%"


def several(many: float, one: str, more: str = "") -> str:
    """Return a count with its noun.

    >>> several(1, "prompt"), several(2, "retry", "retries")
    ('1 prompt', '2 retries')
    """
    return f"{number(many)} {one if many == 1 else more or one + 's'}"


def moment(at: str) -> str:
    """Return a time in UTC as it stands before the page shows the reader's own.

    >>> moment("2026-11-28T22:14:03.123456Z")
    '2026-11-28 22:14 UTC'
    """
    return f"{at[:10]} {at[11:16]} UTC" if len(at) >= 16 else at
