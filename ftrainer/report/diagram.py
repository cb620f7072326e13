"""A picture of a model: its inputs, the modules and functions in between, its outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs

from ftrainer.model.bridge import Model
from ftrainer.model.graph import Plan, Step
from ftrainer.model.nodes import references
from registry import ConfigError, Deferred, Issue

from .layering import Edge, Layout, layout

HEIGHT, LETTER, LONGEST = 46.0, 7.0, 40
FILLS = MappingProxyType({"input": "#DDF4FF", "module": "#FFFFFF", "op": "#F2F0E6", "output": "#DAFBE1"})


@attrs.frozen(kw_only=True)
class Box:
    """One box: what it is called, and under it what it is."""

    kind: str
    title: str
    detail: str = ""

    @property
    def width(self) -> float:
        """Room for the longer of its lines."""
        return 24 + LETTER * max(len(self.title) * 1.08, len(self.detail) * 0.92, 4)


def write_diagram(path: Path, model: Any) -> None:
    """Draw a model.

    Args:
        path: an SVG file.
        model: of the form `graph:` or `sequential:`.

    Raises:
        ConfigError: the path is no SVG file's, leads into no directory, or the model is one opaque module.
    """
    if path.suffix.lower() != ".svg":
        expected = "a name ending in .svg"
        raise ConfigError([Issue(problem="is no picture's name", found=repr(str(path)), expected=expected)])
    if not path.parent.is_dir():
        raise ConfigError([Issue(problem="no such directory", found=repr(str(path.parent)))])
    path.write_text(diagram(model), encoding="utf-8")


def diagram(model: Any) -> str:
    """The picture as SVG."""
    boxes, edges = drawn(model)
    return svg(boxes, edges, layout({name: box.width for name, box in boxes.items()}, edges))


def drawn(model: Any) -> tuple[dict[str, Box], list[Edge]]:
    """Boxes by name, in an order in which they can be computed, and the pairs of them that a line joins.

    Raises:
        ConfigError: nothing is known of the model's inside.
    """
    kwargs = model.factory.kwargs if isinstance(model, Model) else {}
    if isinstance(kwargs.get("plan"), Plan):
        layers = kwargs.get("layers")
        modules = kwargs["modules"] if layers is None else {str(at): layer for at, layer in enumerate(layers)}
        return of_plan(kwargs["plan"], modules)
    if isinstance(model, Model) and "layers" in kwargs:
        return of_chain(model.inputs[0], kwargs["layers"])
    hint = "only `graph:` and `sequential:` say what is inside; `ftrainer show CONFIG --model` lists the layers"
    problem = "is one module whose inside the configuration does not tell"
    raise ConfigError([Issue(path=("model",), problem=problem, hint=hint)])


def of_chain(name: str, layers: Sequence[Any]) -> tuple[dict[str, Box], list[Edge]]:
    """Layers one after another."""
    boxes = {"in": Box(kind="input", title=name)}
    boxes |= {str(at): Box(kind="module", title=str(at), detail=detail_of(each)) for at, each in enumerate(layers)}
    boxes["out"] = Box(kind="output", title="output")
    return boxes, list(zip(boxes, list(boxes)[1:], strict=False))


def of_plan(plan: Plan, modules: Mapping[str, Any]) -> tuple[dict[str, Box], list[Edge]]:
    """The calls of a plan, joined where one reads what another made."""
    boxes = {f"in {name}": Box(kind="input", title=name) for name in plan.inputs}
    makers = {name: f"in {name}" for name in plan.inputs}
    edges: list[Edge] = []
    for index, step in enumerate(plan.steps):
        box = f"step {index}"
        boxes[box] = box_of(step, modules)
        edges += [(makers[name], box) for name in dict(references((step.args, step.kwargs)))]
        makers |= dict.fromkeys(made_by(step), box)
    for name, source in plan.outputs.items():
        title = source if name.isdigit() else name
        boxes[f"out {name}"] = Box(kind="output", title=title)
        edges.append((makers[source], f"out {name}"))
    return boxes, list(dict.fromkeys(edges))


def box_of(step: Step, modules: Mapping[str, Any]) -> Box:
    """A call's box."""
    if step.module is not None:
        return Box(kind="module", title=step.module, detail=detail_of(modules[step.module]))
    name = getattr(step.op, "__name__", type(step.op).__name__)
    return Box(kind="op", title=name, detail=shortened(", ".join(scalars(step.kwargs))))


def made_by(step: Step) -> Iterator[str]:
    """The names of a call's results."""
    if isinstance(step.out, str):
        yield step.out
    else:
        yield from step.out.values() if isinstance(step.out, Mapping) else step.out


def detail_of(spec: Any) -> str:
    """A module's key and its plain arguments, as far as there is room."""
    if not isinstance(spec, Deferred):
        return type(spec).__name__
    return shortened(" ".join([spec.key, *([", ".join(scalars(spec.kwargs))] if spec.kwargs else [])]))


def scalars(kwargs: Mapping[str, Any]) -> Iterator[str]:
    """The arguments that fit in a box."""
    for name, value in kwargs.items():
        if isinstance(value, (bool, int, float, str)):
            yield f"{name}={value}"
        elif isinstance(value, tuple) and all(isinstance(item, (int, float, type(None))) for item in value):
            yield f"{name}=[{', '.join('·' if item is None else str(item) for item in value)}]"


def shortened(text: str) -> str:
    """A line that is not too long."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def svg(boxes: Mapping[str, Box], edges: Sequence[Edge], where: Layout) -> str:
    """Boxes and lines as text."""
    lines = [line_of(where.ways[edge]) for edge in edges]
    shapes = [shape_of(box, *where.centres[name]) for name, box in boxes.items()]
    size = f'width="{where.width:.0f}" height="{where.height:.0f}" viewBox="0 0 {where.width:.0f} {where.height:.0f}"'
    return "\n".join(
        [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">',
         '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">',
         '<path d="M0 0 L8 4 L0 8 z" fill="#57606a"/></marker></defs>',
         '<rect width="100%" height="100%" fill="#ffffff"/>', *lines, *shapes, "</svg>", ""]
    )  # fmt: skip


def line_of(points: Sequence[tuple[float, float]]) -> str:
    """A smooth line from the bottom of a box through way points to the top of another."""
    (x, y), last = points[0], len(points) - 1
    y += HEIGHT / 2
    path = f"M{x:.1f} {y:.1f}"
    for at, (to_x, centre) in enumerate(points[1:], start=1):
        to_y = centre - HEIGHT / 2
        middle = (y + to_y) / 2
        path += f" C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {to_y:.1f}"
        x, y = to_x, to_y
        if at < last:
            y = centre + HEIGHT / 2
            path += f" L{x:.1f} {y:.1f}"
    return f'<path class="edge" d="{path}" fill="none" stroke="#57606a" stroke-width="1.4" marker-end="url(#tip)"/>'


def shape_of(box: Box, x: float, y: float) -> str:
    """A box with its lines of text."""
    radius = 22 if box.kind in ("input", "output") else 6
    frame = f'x="{x - box.width / 2:.1f}" y="{y - HEIGHT / 2:.1f}" width="{box.width:.1f}" height="{HEIGHT:.0f}"'
    rect = f'<rect {frame} rx="{radius}" fill="{FILLS[box.kind]}" stroke="#57606a"/>'
    up = -3 if box.detail else 5
    title = f'<text x="{x:.1f}" y="{y + up:.1f}" text-anchor="middle" font-weight="600">{escape(box.title)}</text>'
    small = f'x="{x:.1f}" y="{y + 14:.1f}" text-anchor="middle" font-size="11" fill="#57606a"'
    detail = f"<text {small}>{escape(box.detail)}</text>" if box.detail else ""
    return f'<g class="{box.kind}">{rect}{title}{detail}</g>'
