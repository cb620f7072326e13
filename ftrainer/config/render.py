"""Issues as people read them: the place, the line, a caret, and what to do."""

from __future__ import annotations

from registry.issue import ConfigError, Issue, dotted

_RED, _BOLD, _DIM, _GREEN, _END = "\033[31m", "\033[1m", "\033[2m", "\033[32m", "\033[0m"


def render(error: ConfigError, color: bool = False) -> str:
    """Every issue of an error, in the order of the text.

    Args:
        error: located by `ResolvedConfig.located`, for places and to keep secrets out.
        color: use ANSI colours.
    """
    issues = sorted(dict.fromkeys(error.issues), key=_order)
    blocks = [_block(issue) for issue in issues]
    text = "\n\n".join([*blocks, f"{len(issues)} error{'s' if len(issues) != 1 else ''}"])
    return text if color else _colourless(text)


def _order(issue: Issue) -> tuple[str, int, int]:
    where = issue.where
    return (where.file, where.line, where.column) if where else ("", 0, 0)


def _colourless(text: str) -> str:
    for code in (_RED, _BOLD, _DIM, _GREEN, _END):
        text = text.replace(code, "")
    return text


def _block(issue: Issue) -> str:
    place = f"{_BOLD}{_printable(str(issue.where))}{_END}: " if issue.where else ""
    path = f"{_BOLD}{_printable(dotted(issue.path))}{_END}: " if issue.path else ""
    lines = [f"{place}{_RED}error{_END}: {path}{_printable(issue.problem)}", *_excerpt(issue)]
    if issue.found is not None:
        lines.append(f"  found:    {_printable(issue.found)}")
    if issue.expected is not None:
        lines.append(f"  expected: {_printable(issue.expected)}")
    if issue.nearest:
        names = " or ".join(_printable(name) for name in issue.nearest)
        lines.append(f"  did you mean {_GREEN}{names}{_END}?")
    if issue.hint:
        lines.append(f"  hint: {_printable(issue.hint)}")
    return "\n".join(lines)


def _excerpt(issue: Issue) -> list[str]:
    where = issue.where
    if where is None or not where.text.strip():
        return []
    number = str(where.line)
    before = "".join("\t" if letter == "\t" else " " for letter in where.text[: where.column - 1])
    bar = f"{_DIM}|{_END}"
    caret = f"{_RED}{'^' * where.width}{_END}"
    return [f"  {number} {bar} {_printable(where.text)}", f"  {' ' * len(number)} {bar} {before}{caret}"]


def _printable(text: str) -> str:
    """Text without control characters, which could steer a terminal."""
    return "".join(letter if letter.isprintable() or letter == "\t" else "�" for letter in text)
