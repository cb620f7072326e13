"""The graph front end: its three forms, and everything that can be wrong with one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ftrainer.functional.random import key
from ftrainer.model import build_model
from ftrainer.model.nodes import GraphWarning
from registry import ConfigError
from tests.models import REGISTRY, graph

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
LINEAR = {"_type_": "nn.Linear", "in_features": 3, "out_features": 3}
NODES = [
    {"name": "h1", "call": "module:a", "args": ["$x"]},
    {"name": "h2", "call": "module:a", "args": ["$h1"]},
    {"name": "h3", "call": "op:add", "args": ["$h1", "$h2"]},
]


ADD = {"call": "op:add", "args": ["$x", 1]}
SKP = ["skip", "skp"]
TYPO = {"_type_": "nn.Liner", "in_features": 3, "out_features": 3}


def section(**changes: Any) -> dict[str, Any]:
    """A graph with one module that is called twice, and a skip."""
    return {"inputs": ["x"], "modules": {"a": LINEAR}, "nodes": NODES, "outputs": ["$h3"], **changes}


def run(model: Any, **inputs: torch.Tensor) -> Any:
    """Outputs of a freshly initialised model."""
    inputs = inputs or {"x": X}
    return model.apply(*model.init(key(0), inputs), inputs)[0]


def refused(*expected: str, **changes: Any) -> None:
    """The section with these changes is refused with all of these messages."""
    with pytest.raises(ConfigError) as caught:
        build_model(REGISTRY, {"graph": {k: v for k, v in section(**changes).items() if v is not None}})
    for message in expected:
        assert message in str(caught.value)


def test_a_module_called_twice_shares_its_weights() -> None:
    model = graph(section())
    params, buffers = model.init(key(0), {"x": X})
    assert list(params) == ["a.weight", "a.bias"]
    module = model.to_module(params, buffers)
    h = module.a(X)
    torch.testing.assert_close(model.apply(params, buffers, {"x": X})[0], h + module.a(h))


def test_list_mapping_and_steps_say_the_same() -> None:
    bodies = [{k: v for k, v in node.items() if k != "name"} for node in NODES]
    names = [node["name"] for node in NODES]
    mapping = section(nodes=dict(zip(reversed(names), reversed(bodies), strict=True)), order=names)
    steps = section(steps=[{**body, "out": name} for name, body in zip(names, bodies, strict=True)])
    del steps["nodes"]
    outputs = [run(graph(form)) for form in (section(), mapping, steps)]
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


def test_inputs_are_the_declared_list_in_order() -> None:
    model = graph(
        {"inputs": ["p", "q"], "nodes": [{"name": "d", "call": "op:sub", "args": ["$q", "$p"]}], "outputs": ["$d"]}
    )
    assert model.inputs == ("p", "q")
    one, two = torch.ones(2), torch.zeros(2)
    assert torch.equal(run(model, p=one, q=two), -one)
    assert torch.equal(model.to_module({}, {})(one, two), -one)
    with pytest.raises(TypeError, match="takes the inputs p, q; found 1"):
        model.to_module({}, {})(one)


def test_results_can_be_taken_apart_and_renamed() -> None:
    nodes = [
        {"name": "parts", "call": "op:split", "args": ["$x", 1], "kwargs": {"dim": 1}, "out": ["l", "m", "r"]},
        {"name": "named", "call": "module:head", "args": ["$x"], "out": {"mean": "mu", "log_std": "sigma"}},
        {"name": "joined", "call": "op:cat", "args": [["$r", "$l"]], "kwargs": {"dim": 1}, "out": "swapped"},
        {"name": "m2", "call": "op:mul", "args": ["$m", 2]},
    ]
    head = {"_type_": "gaussian_head", "in_features": 3, "out_features": 2}
    outputs = {"s": "$swapped", "mu": "$mu", "sigma": "$sigma", "m": "$m2"}
    result = run(graph({"inputs": ["x"], "modules": {"head": head}, "nodes": nodes, "outputs": outputs}))
    assert torch.equal(result["s"], X[:, [2, 0]])
    assert torch.equal(result["m"], 2 * X[:, 1:2])
    assert result["mu"].shape == (4, 2)


OPS = {
    "add": (["$x", 1], lambda x: x + 1), "sub": (["$x", 1], lambda x: x - 1), "mul": (["$x", 2], lambda x: x * 2),
    "div": (["$x", 2], lambda x: x / 2), "matmul": (["$x", "$y"], lambda x: x @ x.T),
    "cat": ([["$x", "$x"], 1], lambda x: torch.cat([x, x], 1)),
    "stack": ([["$x", "$x"]], lambda x: torch.stack([x, x])),
    "getitem": (["$x", 0], lambda x: x[0]), "identity": (["$x"], lambda x: x), "mean": (["$x", 1], lambda x: x.mean(1)),
    "sum": (["$x", [0, 1]], lambda x: x.sum((0, 1))), "reshape": (["$x", [2, -1]], lambda x: x.reshape(2, -1)),
    "permute": (["$x", 1, 0], lambda x: x.T), "flatten": (["$x"], lambda x: x.flatten()),
    "squeeze": (["$x"], lambda x: x.squeeze()), "unsqueeze": (["$x", 1], lambda x: x[:, None]),
    "split": (["$x", [1, 2], 1], lambda x: x.split([1, 2], 1)), "chunk": (["$x", 2], lambda x: x.chunk(2)),
    "softmax": (["$x", -1], lambda x: x.softmax(-1)),
}  # fmt: skip


def test_every_op_has_a_row() -> None:
    assert {name.removeprefix("op.") for name in REGISTRY.keys("op.")} == set(OPS)


@pytest.mark.parametrize("name", OPS)
def test_an_op_does_what_torch_does(name: str) -> None:
    args, expected = OPS[name]
    nodes = [
        {"name": "y", "call": "op:permute", "args": ["$x", [1, 0]]},
        {"name": "o", "call": f"op:{name}", "args": args},
    ]
    model = graph({"inputs": ["x"], "nodes": nodes if "$y" in args else nodes[1:], "outputs": ["$o"]})
    torch.testing.assert_close(run(model), expected(X), rtol=0, atol=0)


def test_a_doubled_dollar_is_text() -> None:
    registry = REGISTRY.register("op.tag", lambda x, text: {text: x})
    nodes = [{"name": "o", "call": "op:tag", "args": ["$x", "$$x"]}]
    model = build_model(registry, {"graph": {"inputs": ["x"], "nodes": nodes, "outputs": ["$o"]}})
    assert list(run(model)) == ["$x"]


@pytest.mark.parametrize(
    ("outputs", "returns", "kind"),
    [
        (["$h3"], None, torch.Tensor), (["$h1", "$h3"], None, tuple), ({"y": "$h3"}, None, dict),
        (["$h3"], "tuple", tuple), ({"y": "$h3"}, "single", torch.Tensor), ({"y": "$h3"}, "tuple", tuple),
    ],
)  # fmt: skip
def test_what_is_returned_is_inferred_or_said(outputs: Any, returns: str | None, kind: type) -> None:
    beside = {} if returns is None else {"return": returns}
    assert isinstance(run(graph(section(outputs=outputs, **beside))), kind)


def test_sequential_models_may_name_outputs_too() -> None:
    layers = [LINEAR, {"_type_": "nn.Tanh"}]
    both = {"layers": layers, "outputs": {"before": "$h0", "after": "$h1"}}
    model = build_model(REGISTRY, {"sequential": both})
    params, buffers = model.init(key(0), {"x": X})
    assert list(params) == ["0.weight", "0.bias"]
    result = model.apply(params, buffers, {"x": X})[0]
    torch.testing.assert_close(result["after"], result["before"].tanh())
    assert isinstance(run(build_model(REGISTRY, {"sequential": {"layers": layers, "return": "tuple"}})), tuple)
    with pytest.raises(ConfigError, match=r"model\.sequential\.outputs\[0\]: .* found \$h7"):
        build_model(REGISTRY, {"sequential": {**both, "outputs": ["$h7"]}})


def node(name: str, *args: str) -> dict[str, Any]:
    return {"name": name, "call": "op:add", "args": [*args, 1][:2]}


def test_a_forward_reference_names_both_ends() -> None:
    refused(
        "nodes[0].args[0]: node 'h1' refers forward to $h2, which node 'h2' (model.graph.nodes[1]) makes only later",
        nodes=[node("h1", "$h2"), node("h2", "$x"), node("h3", "$h1")],
    )


def test_a_cycle_names_its_nodes() -> None:
    refused("in a cycle: h1 → h2 → h1", nodes=[node("h1", "$h2"), node("h2", "$h1"), node("h3", "$h1")])
    refused("in a cycle: h1 → h1", nodes=[node("h1", "$h1"), node("h3", "$h1")])


@given(st.permutations(range(5)))
def test_a_chain_in_the_wrong_order_is_refused_and_in_the_right_order_runs(order: list[int]) -> None:
    chain = [node(f"n{i}", f"$n{i - 1}" if i else "$x") for i in range(5)]
    form = {"inputs": ["x"], "nodes": [chain[i] for i in order], "outputs": ["$n4"]}
    if order == sorted(order):
        assert torch.equal(run(graph(form)), X + 1 + 1 + 1 + 1 + 1)
    else:
        with pytest.raises(ConfigError, match="refers forward to"):
            graph(form)


def test_every_problem_is_listed_at_once() -> None:
    refused(
        "node 'h1' refers to $xs, which is no input and no node's result; did you mean 'x'?",
        "model.graph.nodes[1].call: unknown op; found 'ad'",
        "model.graph.nodes[2].call: unknown module; found 'aa'; expected one of a; did you mean 'a'?",
        "model.graph.nodes[3].kwarg: unknown key; expected name, call, args, kwargs, out; did you mean 'kwargs'",
        "model.graph.outputs[0]: refers to what is no input and no node's result; found $z",
        nodes=[
            node("h1", "$xs"), {**node("h2", "$h1"), "call": "op:ad"}, {**node("h3", "$h2"), "call": "module:aa"},
            {**node("h4", "$h1"), "kwarg": {}},
        ],
        outputs=["$z"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("needs either nodes or steps; found neither", {"nodes": None}),
        ("needs either nodes or steps; found nodes and steps", {"steps": []}),
        ("nodes that are a mapping need an order", {"nodes": {"h3": node("h3", "$x")}}),
        ("order[1]: no node has this name; found 'skp'; did you mean 'skip'", {"nodes": {"skip": ADD}, "order": SKP}),
        ("a node in a list needs a name", {"nodes": [{"call": "op:add", "args": ["$x", 1]}]}),
        ("nodes: has the wrong type; found str; expected a list of nodes", {"nodes": "h1"}),
        ("nodes[0]: a node is a mapping; found 'h1'", {"nodes": ["h1"]}),
        ("calls nothing; found 'add'; expected module:<name> or op:<name>", {"nodes": [{"name": "h3", "call": "add"}]}),
        ("nodes[0].args: is no list; found '$x'", {"nodes": [{"name": "h3", "call": "op:add", "args": "$x"}]}),
        ("nodes[0].kwargs: is no mapping", {"nodes": [{"name": "h3", "call": "op:add", "kwargs": [1]}]}),
        ("a step needs an out", {"nodes": None, "steps": [{"call": "op:add", "args": ["$x", 1]}]}),
        ("args[0]: refers to nothing; found '$'", {"nodes": [node("h3", "$")]}),
        ("the result 'x' of node 'x' is already an input", {"nodes": [node("x", "$x"), node("h3", "$x")]}),
        (
            "the result 'h3' of node 'h3' is already the result of node 'h3' (model.graph.nodes[0])",
            {"nodes": [node("h3", "$x"), node("h3", "$x")]},
        ),
        ("inputs: is no name; found '1x'", {"inputs": ["1x", "x"]}),
        ("inputs: has a name twice; found x, x", {"inputs": ["x", "x"]}),
        ("inputs: is empty", {"inputs": []}),
        ("modules.train: cannot be a module's name; found 'train'", {"modules": {"a": LINEAR, "train": LINEAR}}),
        ("outputs: needs a list of $name or a mapping to them; found None", {"outputs": None}),
        ("return: unknown form; found 'list'; expected single, tuple, dict", {"return": "list"}),
        ("return: single returns exactly one output; found 2", {"return": "single", "outputs": ["$h1", "$h3"]}),
        ("return: dict needs outputs that are a mapping; found a list", {"return": "dict"}),
        ("modules.a._type_: unknown registry key; found 'nn.Liner'; did you mean 'nn.Lin", {"modules": {"a": TYPO}}),
        ("unknown key; found 'node'", {"node": []}),
        ("graph.modlues: unknown key; found 'modlues'; expected inputs, modules, nodes", {"modlues": {}}),
        ("modules: has the wrong type; found a list; expected a mapping of specs", {"modules": [LINEAR]}),
        ("modules.aa: no node calls this module; found 'aa'; did you mean 'a'", {"modules": {"aa": LINEAR}}),
    ],
)  # fmt: skip
def test_what_a_graph_cannot_be(message: str, changes: dict[str, Any]) -> None:
    refused(message, **changes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            {"call": "op:add", "args": ["$x", "one"]},
            "args[1]: has the wrong type; found 'one'; expected $name of a ten",
        ),
        ({"call": "op:add", "args": ["$x"]}, "kwargs.other: is required and missing"),
        ({"call": "op:add", "args": ["$x", 1, 2]}, "args: too many positional arguments; found 3; expected at most 2"),
        (
            {"call": "op:add", "args": ["$x", 1], "kwargs": {"other": 2}},
            "kwargs.other: 'other' is given twice, by posi",
        ),
        ({"call": "op:cat", "args": [["$x", 2.5]]}, "args[0][1]: has the wrong type; found 2.5; expected $name of a"),
        (
            {"call": "op:cat", "args": [["$x"], "last"]},
            "args[1]: has the wrong type; found 'last'; expected an integer",
        ),
        ({"call": "op:cat", "args": [{"a": "$x"}]}, "args[0]: has the wrong type; found a mapping; expected a list of"),
        ({"call": "op:cat", "args": [["$x"]], "kwargs": {"dmi": 1}}, "kwargs.dmi: unknown key; found 'dmi'; expected"),
        (
            {"call": "op:mean", "args": ["$x"], "kwargs": {"dim": [0, "b"]}},
            "kwargs.dim[1]: has the wrong type; found 'b'",
        ),
        ({"call": "op:mul", "args": [["$x"], 2]}, "args[0]: has the wrong type; found a list; expected $name"),
        ({"call": "op:reshape", "args": ["$x", 2, 1.5]}, "args[2]: has the wrong type; found 1.5; expected an integer"),
        ({"call": "op:getitem", "args": ["$x", LINEAR]}, "args[1]: is plain data: nothing is built here; found a spec"),
        ({"call": "module:a", "args": [2.5]}, "args[0]: has the wrong type; found 2.5; expected $name of a tensor"),
        (
            {"call": "module:a", "args": ["$x", "$x"]},
            "args: too many positional arguments; found 2; expected at most 1",
        ),
        ({"call": "module:a"}, "kwargs.input: is required and missing"),
    ],
)
def test_the_arguments_of_a_node_are_checked_against_what_it_calls(call: dict[str, Any], message: str) -> None:
    refused(f"model.graph.nodes[0].{message}", nodes=[{"name": "h3", **call}])


def test_an_unknown_argument_names_the_nearest_first() -> None:
    nodes = [{"name": "h3", "call": "op:softmax", "args": ["$x"], "kwargs": {"dmi": 1}}]
    with pytest.raises(ConfigError) as caught:
        graph(section(nodes=nodes))
    assert [issue.nearest[:1] for issue in caught.value.issues if issue.nearest] == [("dim",)]


def test_sizes_and_dimensions_may_be_named() -> None:
    nodes = [
        {"name": "t", "call": "op:permute", "args": ["$x"], "kwargs": {"dims": [1, 0]}},
        {"name": "o", "call": "op:reshape", "kwargs": {"input": "$t", "shape": [2, -1]}},
    ]
    assert torch.equal(run(graph({"inputs": ["x"], "nodes": nodes, "outputs": ["$o"]})), X.T.reshape(2, -1))


def test_a_node_or_module_that_is_never_used_is_warned_of() -> None:
    with pytest.warns(GraphWarning, match=r"model\.graph\.nodes\[3\]: is never used"):
        graph(section(nodes=[*NODES, node("h4", "$x")]))
    with pytest.warns(GraphWarning, match=r"model\.graph\.modules\.b: is never used"):
        graph(section(modules={"a": LINEAR, "b": LINEAR}))
    with pytest.warns(GraphWarning, match=r"model\.graph\.nodes\.h4: is not in `order` and never runs"):
        graph(section(nodes={"h3": {"call": "module:a", "args": ["$x"]}, "h4": node("h4", "$x")}, order=["h3"]))


def test_what_fails_in_a_node_names_its_line_and_shapes() -> None:
    model = graph(
        section(nodes=[*NODES[:2], {"name": "h3", "call": "op:cat", "args": [["$h1", "$h2"]], "kwargs": {"dim": 7}}])
    )
    with pytest.raises(
        ConfigError, match=r"model\.graph\.nodes\[2\]: the node that makes 'h3' fails: .*found \[float32 \(4, 3\)"
    ):
        model.init(key(0), {"x": X})
    with pytest.raises(
        ConfigError,
        match=r"graph\.modules\.a: layer 'a' \(Linear\) fails: .*found float32 \(4, 2\); expected shape \(…, 3\)",
    ):
        graph(section()).init(key(0), {"x": X[:, :2]})
    three = graph(section(nodes=[{**NODES[0], "out": ["h1", "h2"]}, NODES[2]]))
    with pytest.raises(ConfigError, match=r"makes .'h1', 'h2'. fails"):
        three.init(key(0), {"x": X})


def test_a_factory_that_makes_no_module_is_refused() -> None:
    registry = REGISTRY.register("not.a.module", lambda: 3)
    for form in (
        {"graph": section(modules={"a": {"_type_": "not.a.module"}})},
        {"sequential": {"layers": [{"_type_": "not.a.module"}]}},
    ):
        with pytest.raises(ConfigError, match=r"makes no nn\.Module; found int"):
            build_model(registry, form)
    with pytest.raises(ConfigError, match=r"model\.factory: 'not.a.module' makes no nn.Module; found int"):
        build_model(registry, {"_type_": "model.torch", "factory": {"_type_": "not.a.module"}})
