"""What replacing changes for callers and readers: same, widening, breaking."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from publishing import schema_changes
from publishing.schema_changes import Change, Interface, Tensor

TYPES = ["bool", "int8", "int32", "int64", "uint8", "uint32", "float32", "float64", "string"]
IN = Tensor("tensor", "float32", (None, 18))
OUT = Tensor("variable", "float32", (None, 1))


def interface(inputs: tuple[Tensor, ...] = (IN,), outputs: tuple[Tensor, ...] = (OUT,), **names: object) -> Interface:
    return Interface(**({"pipeline": "p", "models": ("m",)} | names), inputs=inputs, outputs=outputs)  # type: ignore[arg-type]


def change(old: Interface, new: Interface) -> Change:
    return schema_changes.compare(old, new).change


def typed(tensor: Tensor, kind: str) -> Tensor:
    return Tensor(tensor.name, kind, tensor.shape)


def shaped(tensor: Tensor, *shape: int | None) -> Tensor:
    return Tensor(tensor.name, tensor.type, shape)


def test_the_same_is_the_same() -> None:
    found = schema_changes.compare(interface(), interface())
    assert (found.change, found.differences, found.renamed) == (Change.SAME, (), ())


def test_order_of_names_does_not_matter() -> None:
    other = Tensor("other", "int64", (None,))
    assert change(interface((IN, other)), interface((other, IN))) is Change.SAME


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        ((typed(IN, "float64"),), Change.WIDENING),
        ((typed(IN, "int64"),), Change.BREAKING),
        ((typed(IN, "string"),), Change.BREAKING),
        ((shaped(IN, None, None),), Change.WIDENING),
        ((shaped(IN, None, 17),), Change.BREAKING),
        ((shaped(IN, None, 18, 1),), Change.BREAKING),
        ((shaped(IN, 1, 18),), Change.BREAKING),
        ((IN, Tensor("more", "float32", (None,))), Change.BREAKING),
        ((), Change.BREAKING),
        ((Tensor("renamed", "float32", (None, 18)),), Change.BREAKING),
    ],
)
def test_inputs(new: tuple[Tensor, ...], expected: Change) -> None:
    assert change(interface(), interface(new)) is expected


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        ((Tensor("renamed", "float32", (None, 18)),), Change.WIDENING),
        ((Tensor("renamed", "float64", (None, 18)),), Change.WIDENING),
        ((Tensor("renamed", "string", (None, 18)),), Change.BREAKING),
        ((Tensor("renamed", "float32", (None, 17)),), Change.BREAKING),
        ((Tensor("renamed", "float32", (None, 18)), Tensor("more", "float32", (None,))), Change.BREAKING),
        ((IN,), Change.SAME),
    ],
)
def test_only_input_that_is_taken_under_any_name_may_be_renamed(new: tuple[Tensor, ...], expected: Change) -> None:
    assert change(interface(), interface(new, takes_any_name=True)) is expected
    assert change(interface((*new, OUT)), interface(new, takes_any_name=True)) is Change.BREAKING


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        ((OUT, Tensor("more", "float32", (None,))), Change.WIDENING),
        ((), Change.BREAKING),
        ((typed(OUT, "float64"),), Change.BREAKING),
        ((typed(OUT, "float16"),), Change.WIDENING),
        ((shaped(OUT, None, 2),), Change.BREAKING),
        ((shaped(OUT, 1, 1),), Change.WIDENING),
    ],
)
def test_outputs(new: tuple[Tensor, ...], expected: Change) -> None:
    assert change(interface(), interface(outputs=new)) is expected


@pytest.mark.parametrize(
    ("given_type", "taker", "fits"),
    [
        ("int8", "int64", True),
        ("int64", "int8", False),
        ("uint8", "int16", True),
        ("uint8", "int8", False),
        ("int8", "uint64", False),
        ("int32", "float32", False),
        ("int32", "float64", True),
        ("int16", "float32", True),
        ("float32", "int64", False),
        ("bool", "float32", False),
        ("string", "string", True),
    ],
)
def test_only_casts_without_loss_are_widening(given_type: str, taker: str, fits: bool) -> None:
    old, new = interface((typed(IN, given_type),)), interface((typed(IN, taker),))
    assert (change(old, new) is not Change.BREAKING) == fits


def test_renamed_pipeline_and_models_are_told_for_drift_and_break_nothing() -> None:
    found = schema_changes.compare(interface(), interface(pipeline="q", models=("n",)))

    assert found.change is Change.SAME
    assert found.renamed == ("The pipeline changes from p to q.", "The models change from m to n.")
    logs, drift, requests = schema_changes.considerations(found)
    assert "same fields" in logs and "Pause the assays" in drift and "stay as they are" in requests


def test_three_considerations_name_what_breaks() -> None:
    found = schema_changes.compare(interface(), interface((typed(IN, "string"),)))
    logs, drift, requests = schema_changes.considerations(found)

    assert "new fields" in logs and "they go on" in drift
    assert requests == (
        "Inference requests: they must be changed to match: "
        "The input tensor changes from float32[any, 18] to string[any, 18]."
    )


patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
shapes = st.none() | st.lists(st.none() | st.integers(1, 3), max_size=3).map(tuple)
tensors = st.builds(Tensor, st.sampled_from("abc"), st.sampled_from(TYPES), shapes)
fields = st.lists(tensors, max_size=3, unique_by=lambda t: t.name).map(tuple)
interfaces = st.builds(Interface, st.just("p"), st.just(("m",)), fields, fields)


@patient
@given(interfaces, interfaces, interfaces)
def test_what_is_not_breaking_twice_is_not_breaking_at_once(a: Interface, b: Interface, c: Interface) -> None:
    if Change.BREAKING not in (change(a, b), change(b, c)):
        assert change(a, c) is not Change.BREAKING


@patient
@given(interfaces, interfaces)
def test_differences_are_there_exactly_when_something_differs(a: Interface, b: Interface) -> None:
    found = schema_changes.compare(a, b)
    same = {t.name: t for t in a.inputs} == {t.name: t for t in b.inputs} and {t.name: t for t in a.outputs} == {
        t.name: t for t in b.outputs
    }
    assert (found.change is Change.SAME) == (not found.differences) == same


@patient
@given(interfaces, interfaces)
def test_who_widens_cannot_be_undone_without_breaking(a: Interface, b: Interface) -> None:
    if change(a, b) is Change.WIDENING:
        assert change(b, a) is Change.BREAKING
