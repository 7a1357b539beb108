"""Smaller programs that fail in the same way."""

import re
from collections.abc import Callable, Iterator

from tests.jacobian.programs.source import Program

_DEFINES = re.compile(r"^ +(?:def )?([pvtf]\d+)(?: = |\()")
_LINE = re.compile(r"^( +)(\w+) = (.*)  # (\w+)(\[.*\])$")


def prune(program: Program) -> Program:
    """Without the values, functions and parameters that nothing uses."""
    lines = list(program.lines)
    i = 1
    while i < len(lines):
        defined = _DEFINES.match(lines[i])
        end = i + 1
        while defined and end < len(lines) and _indent(lines[end]) > _indent(lines[i]):
            end += 1
        rest = lines[:i] + lines[end:]
        if defined and not re.search(rf"\b{defined[1]}\b", "\n".join(rest)):
            lines, i = rest, 1
        else:
            i += 1
    text = "\n".join(lines)
    params = {k: v for k, v in program.params.items() if re.search(rf"\b{k}\b", text)}
    return program._replace(lines=tuple(lines), params=params or program.params)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def shrink(program: Program, fails: Callable[[Program], bool]) -> Program:
    """The program with as many lines made trivial as possible while it ``fails``."""
    program = prune(program)
    if not fails(program):
        return program
    again = True
    while again:
        again = False
        for smaller in _smaller(program):
            if _cost(smaller) < _cost(program) and fails(smaller):
                program, again = smaller, True
                break
    return program


def _cost(program: Program) -> int:
    return sum(len(re.sub(r"#.*", "", x)) for x in program.lines)


def _smaller(program: Program) -> Iterator[Program]:
    """Programs with one expression replaced by something simpler."""
    lines = program.lines
    terms = lines[-1].strip().removeprefix("return ").split(" + ")
    if len(terms) > 1 and not program.network:
        for i in range(len(terms)):
            rest = " + ".join(terms[:i] + terms[i + 1 :])
            yield _with(program, len(lines) - 1, f"    return {rest}")
    for i in range(len(lines) - 1, 0, -1):
        found = _LINE.match(lines[i])
        if not found:
            continue
        indent, name, code, dtype, shape = found.groups()
        simple = f"data(7, *{shape}).astype('{dtype}')"
        options = [*_earlier(lines, i, indent, f"{dtype}{shape}"), simple]
        for option in options:
            if option != code:
                yield _with(program, i, f"{indent}{name} = {option}  # {dtype}{shape}")


def _earlier(lines, i, indent, kind) -> list[str]:
    """Values of one kind that a line of this indentation can see."""
    seen = []
    depth = len(indent)
    for line in reversed(lines[:i]):
        found = _LINE.match(line)
        head = re.match(r"^( +)def \w+\((.*)\):", line)
        if head and len(head[1]) < depth:
            depth = len(head[1])
        elif found and len(found[1]) <= depth and f"{found[4]}{found[5]}" == kind:
            seen.append(found[2])
    return seen[:3]


def _with(program: Program, i: int, line: str) -> Program:
    lines = (*program.lines[:i], line, *program.lines[i + 1 :])
    return prune(program._replace(lines=lines))
