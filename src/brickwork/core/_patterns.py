"""Regular expressions on paths, and what to say when they are none or match nothing."""

from __future__ import annotations

import re


def compiled(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    """The regular expression, or an error that names it."""
    if not isinstance(pattern, (str, re.Pattern)):
        several = isinstance(pattern, (list, tuple, set)) and pattern and all(isinstance(p, str) for p in pattern)
        fix = f"; for several, write {'|'.join(pattern)!r}" if several else ""
        raise TypeError(f"a pattern must be a regular expression in a string, got {pattern!r:.60}{fix}")
    try:
        return re.compile(pattern)
    except re.error as error:
        hint = " (for a wildcard write '.*')" if "*" in str(pattern) else ""
        raise ValueError(f"{pattern!r} is not a regular expression: {error}{hint}") from None


def no_match(what: str, pattern: str, names: list[str]) -> ValueError:
    """The error for a pattern that was meant to select something but matches nothing."""
    ends = {name[found.end() :][:1] for name in names if (found := compiled(pattern).match(name))}
    below = r"\..*" if "." in ends else ".*"  # of a layer '1' not those of '10'
    hint = f"; to match everything below it, write r'{pattern}{below}'" if ends else ""
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return ValueError(
        f"{what}: {pattern!r} matches none of the paths ({shown or 'there are none'}); a pattern is a regular "
        f"expression that must match the whole path{hint}"
    )
