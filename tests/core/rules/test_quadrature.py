"""The quadrature rules: accuracy to the last digit, degree, structure, errors and the helpers."""

from __future__ import annotations

import copy
import decimal
import pickle
import warnings
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mp_rules import reference_rule
from mpmath import mp, mpf
from numpy.polynomial import Legendre

import quadflow as q
from quadflow.rules import families, lagrange
from quadflow.rules.chebyshev import fejer_first, fejer_second
from quadflow.rules.decimals import gauss_decimals
from quadflow.rules.families import NegativeWeightsWarning
from quadflow.rules.newton_cotes import newton_cotes_open
from quadflow.rules.quadrature import FAMILIES
from quadflow.rules.rule import QuadratureRule

GAUSS_AND_CHEBYSHEV = [name for name in FAMILIES if not name.startswith("newton-cotes")]
NEWTON_COTES = [name for name in FAMILIES if name.startswith("newton-cotes")]
LOBATTO_ALPHA = (1 - 1 / np.sqrt(5)) / 2


def make(name: str, n: int) -> QuadratureRule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NegativeWeightsWarning)
        return FAMILIES[name].function(n)


def rebuilt(rule: QuadratureRule, **changes: object) -> QuadratureRule:
    names = ("family", "nodes", "weights", "integration_matrix", "degree")
    return QuadratureRule(**{name: changes.get(name, getattr(rule, name)) for name in names})


def worst_errors(name: str, n: int) -> tuple[float, float, float]:
    """Largest absolute errors of nodes, weights and matrix; differences taken in mpmath."""
    rule = make(name, n)
    nodes, weights, matrix = reference_rule(name, n)

    def worst(got: np.ndarray, want: list[mpf]) -> float:
        pairs = zip(got.ravel().tolist(), want, strict=True)
        return float(max(abs(mpf(a) - b) for a, b in pairs))

    flat = [value for row in matrix for value in row]
    with mp.workdps(50):
        return (
            worst(rule.nodes, nodes),
            worst(rule.weights, weights),
            worst(rule.integration_matrix, flat),
        )


# --------------------------------------------------------------------------------------------------
# Accuracy
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GAUSS_AND_CHEBYSHEV)
def test_accurate_to_the_last_digit_up_to_32(name: str) -> None:
    for n in range(FAMILIES[name].minimum, 33):
        assert max(worst_errors(name, n)) <= 1e-15, n


@pytest.mark.parametrize("n", [40, 48, 56, 64])
@pytest.mark.parametrize("name", GAUSS_AND_CHEBYSHEV)
def test_accurate_up_to_64(name: str, n: int) -> None:
    assert max(worst_errors(name, n)) <= 1e-14


@pytest.mark.parametrize("name", NEWTON_COTES)
def test_newton_cotes_accurate_relative_to_its_weights(name: str) -> None:
    for n in range(FAMILIES[name].minimum, 25):
        size = max(1.0, np.abs(make(name, n).integration_matrix).max())
        assert max(worst_errors(name, n)) <= 2e-16 * size, n


def test_the_reference_knows_every_family() -> None:
    for name, info in FAMILIES.items():
        nodes, weights, matrix = reference_rule(name, info.minimum)
        assert len(nodes) == len(weights) == len(matrix) == info.minimum


def test_the_callers_decimal_context_does_not_matter() -> None:
    before = q.radau_right(7)
    families._made.cache_clear()
    gauss_decimals.cache_clear()
    context = decimal.Context(prec=5, rounding=decimal.ROUND_UP, traps=[decimal.Inexact])
    with decimal.localcontext(context):
        assert q.radau_right(7) == before


# --------------------------------------------------------------------------------------------------
# Degree of exactness
# --------------------------------------------------------------------------------------------------


def integral(rule: QuadratureRule, coefficients: np.ndarray) -> tuple[float, float]:
    """What the rule makes of a shifted Legendre series, and the exact value."""
    return float(rule.weights @ Legendre(coefficients, domain=[0, 1])(rule.nodes)), coefficients[0]


@st.composite
def rules_and_series(draw: st.DrawFn) -> tuple[QuadratureRule, np.ndarray]:
    info = FAMILIES[draw(st.sampled_from(sorted(FAMILIES)))]
    largest = min(32, info.maximum or 32)
    n = draw(st.integers(info.minimum, largest))
    seed = draw(st.integers(0, 2**32 - 1))
    return make(info.name, n), np.random.default_rng(seed).uniform(-1, 1, info.degree(n) + 1)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(rules_and_series())
def test_exact_at_the_degree_and_not_above(pair: tuple[QuadratureRule, np.ndarray]) -> None:
    rule, series = pair
    assert rule.degree == FAMILIES[rule.family].degree(rule.n)
    size = np.abs(series).sum() * max(1.0, np.abs(rule.weights).sum())
    got, exact = integral(rule, series)
    assert abs(got - exact) <= 1e-14 * size

    got, exact = integral(rule, np.append(series, 1.0))
    assert abs(got - exact) > 1e-11 * size


@settings(derandomize=True, deadline=None, max_examples=60)
@given(rules_and_series())
def test_matrix_integrates_every_interpolant(pair: tuple[QuadratureRule, np.ndarray]) -> None:
    rule, series = pair
    polynomial = Legendre(series[: rule.n], domain=[0, 1])
    got = rule.integration_matrix @ polynomial(rule.nodes)
    size = np.abs(series).sum() * max(1.0, np.abs(rule.integration_matrix).sum(axis=1).max())
    np.testing.assert_allclose(got, polynomial.integ(lbnd=0)(rule.nodes), rtol=0, atol=1e-14 * size)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_rule_from_nodes_finds_the_degree(name: str) -> None:
    info = FAMILIES[name]
    for n in range(info.minimum, min(20, info.maximum or 20) + 1):
        rule = make(name, n)
        again = q.rule_from_nodes(rule.nodes, family=name)
        assert again.degree == rule.degree
        size = np.abs(rule.weights).max()
        np.testing.assert_allclose(again.weights, rule.weights, rtol=0, atol=1e-13 * max(1, size))


def test_degree_falls_back_where_gauss_nodes_are_truncated() -> None:
    assert q.rule_from_nodes(q.gauss_legendre(4).nodes).degree == 7
    assert q.rule_from_nodes(np.round(q.gauss_legendre(4).nodes, 10)).degree == 3


# --------------------------------------------------------------------------------------------------
# Classical values
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "nodes", "weights", "degree"),
    [
        (q.midpoint_rule(), [0.5], [1], 1),
        (q.trapezoid(), [0, 1], [0.5, 0.5], 1),
        (q.simpson(), [0, 0.5, 1], [1 / 6, 2 / 3, 1 / 6], 3),
        (q.three_eighths(), [0, 1 / 3, 2 / 3, 1], [1 / 8, 3 / 8, 3 / 8, 1 / 8], 3),
        (q.boole(), [0, 0.25, 0.5, 0.75, 1], np.array([7, 32, 12, 32, 7]) / 90, 5),
        (
            q.gauss_lobatto(4),
            [0, LOBATTO_ALPHA, 1 - LOBATTO_ALPHA, 1],
            [1 / 12, 5 / 12, 5 / 12, 1 / 12],
            5,
        ),
        (q.radau_right(1), [1], [1], 0),
        (q.radau_left(1), [0], [1], 0),
        (q.radau_right(2), [1 / 3, 1], [3 / 4, 1 / 4], 2),
        (q.radau_left(2), [0, 2 / 3], [1 / 4, 3 / 4], 2),
        (q.gauss_legendre(1), [0.5], [1], 1),
        (q.gauss_legendre(2), [0.5 - 3**0.5 / 6, 0.5 + 3**0.5 / 6], [0.5, 0.5], 3),
        (
            q.gauss_legendre(3),
            [0.5 - 15**0.5 / 10, 0.5, 0.5 + 15**0.5 / 10],
            [5 / 18, 4 / 9, 5 / 18],
            5,
        ),
        (q.clenshaw_curtis(3), [0, 0.5, 1], [1 / 6, 2 / 3, 1 / 6], 3),
        (q.fejer(1), [0.5], [1], 1),
        (q.fejer(2, kind=2), [0.25, 0.75], [0.5, 0.5], 1),
        (q.newton_cotes(2, closed=False), [1 / 3, 2 / 3], [0.5, 0.5], 1),
    ],
    ids=repr,
)
def test_classical_rules(rule: QuadratureRule, nodes, weights, degree: int) -> None:
    np.testing.assert_allclose(rule.nodes, nodes, rtol=0, atol=2e-16)
    np.testing.assert_allclose(rule.weights, weights, rtol=0, atol=2e-16)
    assert rule.degree == degree


def test_classical_tableaus() -> None:
    radau_iia = [[5 / 12, -1 / 12], [3 / 4, 1 / 4]]
    np.testing.assert_allclose(q.radau_right(2).integration_matrix, radau_iia, rtol=0, atol=1e-16)
    root = 3**0.5 / 6
    gauss = [[1 / 4, 1 / 4 - root], [1 / 4 + root, 1 / 4]]
    np.testing.assert_allclose(q.gauss_legendre(2).integration_matrix, gauss, rtol=0, atol=2e-16)
    lobatto_iiia = [[0, 0, 0], [5 / 24, 1 / 3, -1 / 24], [1 / 6, 2 / 3, 1 / 6]]
    np.testing.assert_allclose(q.simpson().integration_matrix, lobatto_iiia, rtol=0, atol=1e-16)


def test_symmetric_four() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for alpha in (0.22, 0.25, 0.3, 1 / 3, 0.4, 0.49):
            rule = q.symmetric_four(alpha)
            inner = 1 / (12 * alpha * (1 - alpha))
            assert rule.degree == 3
            assert rule.nodes.tolist() == [0.0, alpha, 1 - alpha, 1.0]
            expected = [0.5 - inner, inner, inner, 0.5 - inner]
            np.testing.assert_allclose(rule.weights, expected, rtol=0, atol=1e-15)
            assert rule.is_symmetric
    lobatto = q.symmetric_four(LOBATTO_ALPHA)
    assert lobatto.degree == 5
    np.testing.assert_allclose(lobatto.weights, q.gauss_lobatto(4).weights, rtol=0, atol=1e-15)
    np.testing.assert_allclose(
        q.symmetric_four(1 / 3).weights, q.three_eighths().weights, rtol=0, atol=1e-15
    )


# --------------------------------------------------------------------------------------------------
# Structure
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"radau-left", "radau-right"}))
def test_symmetric_families_are_exactly_symmetric(name: str) -> None:
    info = FAMILIES[name]
    for n in range(info.minimum, min(40, info.maximum or 40) + 1):
        rule = make(name, n)
        ulp = np.spacing(1.0)
        assert rule.is_symmetric
        assert (np.abs(rule.nodes + rule.nodes[::-1] - 1) <= ulp).all()
        assert (rule.weights == rule.weights[::-1]).all()
        if n % 2:
            assert rule.nodes[n // 2] == 0.5
        # From c_i to 1 is from 0 to 1 - c_i in the mirror.
        mirrored = rule.weights - rule.integration_matrix[::-1, ::-1]
        size = max(1.0, np.abs(rule.integration_matrix).max())
        np.testing.assert_allclose(rule.integration_matrix, mirrored, rtol=0, atol=4e-16 * size)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_end_points_are_exact(name: str) -> None:
    info = FAMILIES[name]
    both = name in ("gauss-lobatto", "clenshaw-curtis", "newton-cotes-closed")
    for n in range(info.minimum, min(20, info.maximum or 20) + 1):
        rule = make(name, n)
        assert rule.n == n
        assert rule.has_left == (both or name == "radau-left")
        assert rule.has_right == (both or name == "radau-right")
        if rule.has_left:
            assert (rule.integration_matrix[0] == 0).all()
        if rule.has_right:
            assert (rule.integration_matrix[-1] == rule.weights).all()


@pytest.mark.parametrize("n", [1, 2, 3, 8, 17])
def test_radau_rules_are_mirror_images(n: int) -> None:
    left, right = q.radau_left(n), q.radau_right(n)
    np.testing.assert_allclose(left.nodes, 1 - right.nodes[::-1], rtol=0, atol=2e-16)
    np.testing.assert_allclose(left.weights, right.weights[::-1], rtol=0, atol=1e-16)
    assert not left.is_symmetric


@pytest.mark.parametrize("name", GAUSS_AND_CHEBYSHEV)
def test_weights_are_positive(name: str) -> None:
    for n in (*range(FAMILIES[name].minimum, 33), 64):
        assert make(name, n).has_positive_weights


@pytest.mark.parametrize("name", ["gauss-legendre", "radau-right", "clenshaw-curtis"])
def test_the_largest_rule_passes_its_own_check(name: str) -> None:
    assert FAMILIES[name].maximum == 128
    rule = make(name, 128)
    assert rule.n == 128
    assert rule.degree == FAMILIES[name].degree(128)


# --------------------------------------------------------------------------------------------------
# Errors and warnings
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [True, 3.0, "3", None, np.float64(3), np.bool_(True)])
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_n_must_be_an_int(name: str, value: object) -> None:
    kind = type(value).__name__
    with pytest.raises(TypeError, match=rf"{name}: n must be an integer, got .*{kind}"):
        FAMILIES[name].function(value)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_n_may_be_a_numpy_integer(name: str) -> None:
    assert make(name, np.int64(2)) is make(name, 2)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_n_out_of_range(name: str) -> None:
    info = FAMILIES[name]
    for n in (info.minimum - 1, -3):
        with pytest.raises(ValueError, match=rf"{name} needs n >= {info.minimum}, got {n}: .*use"):
            info.function(n)
    assert info.maximum is not None
    n = info.maximum + 1
    with pytest.raises(ValueError, match=rf"{name} is limited to n <= {n - 1}, got {n}: .*use"):
        info.function(n)


def test_the_remedies() -> None:
    with pytest.raises(ValueError, match=r"both end points; use gauss_legendre\(1\)"):
        q.gauss_lobatto(1)
    with pytest.raises(ValueError, match=r"leave no digits; use clenshaw_curtis or gauss_legendre"):
        q.newton_cotes(25)
    with pytest.raises(ValueError, match=r"use newton_cotes\(1, closed=False\)"):
        q.newton_cotes(1)


@pytest.mark.parametrize(("closed", "negative"), [(True, {9}), (False, {3})])
def test_negative_weights_warn_on_every_call(closed: bool, negative: set[int]) -> None:
    negative = negative | set(range(11 if closed else 5, 25))
    name = f"newton-cotes-{'closed' if closed else 'open'}"
    for n in range(FAMILIES[name].minimum, 25):
        for _ in range(2):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                rule = q.newton_cotes(n, closed=closed)
            assert rule.has_positive_weights == (n not in negative)
            assert len(caught) == (n in negative)
            if caught:
                assert caught[0].category is NegativeWeightsWarning
                assert caught[0].filename == __file__  # the caller's line, not the library's
                text = str(caught[0].message)
                assert text.startswith(f"{name} with n={n} has negative weights (minimum -")
                assert "use clenshaw_curtis or gauss_legendre" in text


def test_the_warning_names_the_caller_from_every_door() -> None:
    doors = (lambda: newton_cotes_open(3), FAMILIES["newton-cotes-open"].function)
    for door, args in zip(doors, ((), (3,)), strict=True):
        with pytest.warns(NegativeWeightsWarning, match="newton-cotes-open with n=3") as caught:
            door(*args)
        assert caught[0].filename == __file__


def test_symmetric_four_errors_and_warning() -> None:
    with pytest.warns(NegativeWeightsWarning, match=r"symmetric-four .* use alpha >= 0\.2114"):
        q.symmetric_four(0.21)
    for alpha in (0.0, 0.5, -0.1, 0.7, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=rf"symmetric_four: alpha .* \(0, 1/2\), got {alpha}"):
            q.symmetric_four(alpha)
    for wrong in ("0.3", True, None):
        with pytest.raises(TypeError, match="symmetric_four: alpha must be a real number"):
            q.symmetric_four(wrong)
    with pytest.raises(ValueError, match=r"symmetric-four: the weights reach .* closest nodes"):
        q.symmetric_four(1e-12)


def test_fejer_and_newton_cotes_arguments() -> None:
    assert q.fejer(4) is fejer_first(4)
    assert q.fejer(4, kind=2) is fejer_second(4)
    with pytest.raises(ValueError, match=r"fejer: kind must be 1 .* or 2 .*, got 3"):
        q.fejer(4, kind=3)
    with pytest.raises(TypeError, match=r"fejer: kind must be an integer, got 1\.0"):
        q.fejer(4, kind=1.0)
    with pytest.raises(TypeError, match="closed must be True or False, got 'open'"):
        q.newton_cotes(4, closed="open")


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([0.0, 0.5, 0.5, 1.0], r"nodes 1 and 2 are duplicate, both 0\.5"),
        ([0.0, 0.7, 0.3], r"unsorted, node 1 is 0\.7 and node 2 is 0\.3: sort"),
        ([0.0, float("nan")], "node 1 is nan, not finite"),
        ([0.0, float("inf")], "node 1 is inf, not finite"),
        ([0.0, 0.5, 1.5], r"node 2 is 1\.5, outside \[0, 1\]"),
        ([-1e-9, 0.5], r"node 0 is -1e-09, outside \[0, 1\]"),
        ([], r"shape \(n,\) with 1 <= n <= 128, got \(0,\)"),
        ([[0.0, 1.0]], r"got \(1, 2\)"),
        (np.linspace(0, 1, 129), r"got \(129,\)"),
        (np.linspace(0, 1, 60), "weights reach .* in size and leave too few digits"),
        ([0.0, 0.5, 0.5 + 1e-12, 1.0], r"closest nodes are 1 and 2 \(0\.5"),
        ([0.0, 5e-324], "weights reach .* closest nodes are 0 and 1"),
    ],
)
def test_rule_from_nodes_errors(nodes: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        q.rule_from_nodes(nodes)
    assert str(caught.value).startswith(("rule_from_nodes: ", "custom: "))


@pytest.mark.parametrize("nodes", [["a", "b"], [0.0, 1j], [True, False]])
def test_rule_from_nodes_wants_real_numbers(nodes: object) -> None:
    with pytest.raises(TypeError, match="rule_from_nodes: nodes must be real numbers, got dtype"):
        q.rule_from_nodes(nodes)


def test_rule_from_nodes_accepts_ints_float32_and_one_node() -> None:
    assert (q.rule_from_nodes([0, 1]).weights == 0.5).all()
    assert q.rule_from_nodes(np.array([0.25, 0.75], dtype=np.float32)).family == "custom"
    assert q.rule_from_nodes([0.5]).degree == 1
    assert q.rule_from_nodes([0.3], family="mine").degree == 0
    assert q.rule_from_nodes([0.3], family="mine").integration_matrix.tolist() == [[0.3]]


# --------------------------------------------------------------------------------------------------
# The rule as an object
# --------------------------------------------------------------------------------------------------


def test_immutable() -> None:
    rule = q.gauss_lobatto(4)
    for name in ("nodes", "weights", "integration_matrix"):
        array = getattr(rule, name)
        assert array.dtype == np.float64
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0.0
        with pytest.raises(AttributeError):
            setattr(rule, name, array)
    with pytest.raises(AttributeError):
        rule.degree = 4


def test_the_rule_owns_its_arrays() -> None:
    nodes = np.array([0.0, 1.0])
    matrix = np.array([[0.0, 0.0], [0.5, 0.5]])
    rule = QuadratureRule("mine", nodes, [0.5, 0.5], matrix, 1)
    nodes[0] = 9.0
    matrix[:] = 9.0
    assert rule.nodes[0] == 0.0
    assert rule.integration_matrix[1, 0] == 0.5


def test_equality_and_hash() -> None:
    rule = q.gauss_lobatto(4)
    assert rule == rebuilt(rule)
    assert hash(rule) == hash(rebuilt(rule))
    assert rule == rebuilt(rule, nodes=[-0.0, *rule.nodes[1:]])
    assert rule != q.gauss_lobatto(5)
    assert rule != rebuilt(rule, family="other")
    assert rule != "rule"
    assert len({rule, rebuilt(rule), q.simpson()}) == 2


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))]
)
def test_copies_are_equal_and_read_only(again) -> None:
    rule = q.radau_right(3)
    other = again(rule)
    assert other == rule
    assert not other.integration_matrix.flags.writeable


def test_repr() -> None:
    assert repr(q.gauss_lobatto(4)) == "QuadratureRule('gauss-lobatto', n=4, degree=5)"


def test_cached_and_named_as_written() -> None:
    assert q.gauss_legendre(6) is q.gauss_legendre(6)
    assert q.gauss_legendre.__name__ == "gauss_legendre"
    assert "Gauss-Legendre" in q.gauss_legendre.__doc__


SAMPLED = [
    ("gauss-legendre", 1),
    ("gauss-legendre", 5),
    ("gauss-legendre", 64),
    ("gauss-lobatto", 4),
    ("gauss-lobatto", 20),
    ("radau-left", 3),
    ("radau-right", 7),
    ("clenshaw-curtis", 9),
    ("clenshaw-curtis", 64),
    ("fejer-1", 6),
    ("fejer-2", 33),
    ("newton-cotes-closed", 7),
    ("newton-cotes-closed", 24),
    ("newton-cotes-open", 24),
]


@pytest.mark.parametrize("name", ["nodes", "weights", "integration_matrix"])
@pytest.mark.parametrize(("family", "n"), SAMPLED)
def test_a_corrupted_entry_is_caught(family: str, n: int, name: str) -> None:
    rule = make(family, n)
    array = getattr(rule, name)
    indices = list(np.ndindex(array.shape))
    if len(indices) > 64:  # a fixed sample of the large matrices, corners included
        chosen = np.random.default_rng(n).choice(len(indices), 60, replace=False)
        indices = [indices[0], indices[-1], *(indices[int(i)] for i in chosen)]
    for index in indices:
        for change in (2e-6, -2e-6):
            broken = array.copy()
            broken[index] += change
            with pytest.raises(ValueError, match="QuadratureRule"):
                rebuilt(rule, **{name: broken})


def test_corruption_that_keeps_the_sums_is_caught() -> None:
    rule = q.gauss_legendre(6)
    weights, matrix = rule.weights.copy(), rule.integration_matrix.copy()
    weights[[1, 2]] += 1e-6, -1e-6
    matrix[3, [0, 4]] += 1e-6, -1e-6
    with pytest.raises(ValueError, match="weights are not exact at degree"):
        rebuilt(rule, weights=weights)
    with pytest.raises(ValueError, match="row 3 of integration_matrix is not exact at degree"):
        rebuilt(rule, integration_matrix=matrix)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"degree": 4}, "exact beyond the declared degree 4"),
        ({"degree": 6}, "not exact at degree 6"),
        ({"degree": 8}, r"degree 8 is not in 0\.\.7"),
        ({"degree": -1}, r"degree -1 is not in 0\.\.7"),
        ({"nodes": [[0.0]]}, r"nodes need shape \(n,\)"),
        ({"nodes": []}, r"nodes need shape \(n,\)"),
        ({"weights": [0.5, 0.5]}, r"weights need shape \(4,\), got \(2,\)"),
        ({"integration_matrix": np.eye(3)}, r"need shape \(4, 4\), got \(3, 3\)"),
        ({"weights": [np.nan] * 4}, r"weights has a non-finite entry at index \(0,\)"),
        ({"nodes": [0.0, 0.7, 0.3, 1.0]}, "unsorted"),
        ({"nodes": [0.0, 0.3, 0.3, 1.0]}, "duplicate"),
        ({"nodes": [0.0, 0.3, 0.7, 1.1]}, r"outside \[0, 1\]"),
        ({"weights": [0.25] * 4}, "weights are not exact at degree 2"),
        ({"weights": [1.0] * 4}, "weights do not sum to 1"),
        ({"integration_matrix": np.zeros((4, 4))}, "row 1 of integration_matrix does not sum"),
    ],
)
def test_the_self_check_says_what_is_wrong(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rebuilt(q.gauss_lobatto(4), **changes)


def test_degree_must_be_an_int() -> None:
    with pytest.raises(TypeError, match=r"QuadratureRule: degree must be an integer, got 5\.0"):
        rebuilt(q.gauss_lobatto(4), degree=5.0)


def test_a_new_family_is_one_function() -> None:
    try:

        @families.family("thirds", minimum=1, maximum=1, degree=lambda n: 0, too_few="take one")
        def thirds(n: int) -> list[Decimal]:
            """One node at a third."""
            return [Decimal(1) / 3]

        assert FAMILIES["thirds"].function is thirds
        assert thirds(1).nodes.tolist() == [1 / 3]
        with pytest.raises(ValueError, match="thirds needs n >= 1, got 0: take one"):
            thirds(0)
    finally:
        FAMILIES.pop("thirds", None)


# --------------------------------------------------------------------------------------------------
# The Lagrange helpers
# --------------------------------------------------------------------------------------------------


def exact_basis(nodes: list[float], points: list[float]) -> np.ndarray:
    """Lagrange basis values in mpmath, rounded to float64."""
    with mp.workdps(50):
        return np.array(
            [
                [
                    float(
                        mp.fprod(
                            (mpf(x) - mpf(c)) / (mpf(own) - mpf(c))
                            for k, c in enumerate(nodes)
                            if k != j
                        )
                    )
                    for j, own in enumerate(nodes)
                ]
                for x in points
            ]
        )


def exact_integrals(nodes: list[float], uppers: list[float], lower: float) -> np.ndarray:
    """Integrals of the Lagrange basis in mpmath, by monomial coefficients about `lower`."""
    with mp.workdps(80):
        rows = []
        for upper in uppers:
            row = []
            for j, own in enumerate(nodes):
                coefficients = [mpf(1)]  # lowest first
                for k, c in enumerate(nodes):
                    if k != j:
                        root, gap = mpf(c) - mpf(lower), mpf(own) - mpf(c)
                        up = [mpf(0), *coefficients]
                        down = [*coefficients, mpf(0)]
                        coefficients = [(a - root * b) / gap for a, b in zip(up, down, strict=True)]
                width = mpf(upper) - mpf(lower)
                row.append(
                    float(
                        mp.fsum(a * width ** (i + 1) / (i + 1) for i, a in enumerate(coefficients))
                    )
                )
            rows.append(row)
        return np.array(rows)


NODE_SETS = [
    [0.3],
    [0.0, 1.0],
    [-2.0, -1.3, -0.4, 0.0],
    [5.0, 3.0, 4.1, 3.7, 4.6],  # unsorted, far from 0
    [1000.0, 1000.001, 1000.003, 1000.0045],
    [-1e-8, -4e-9, 0.0],
    np.linspace(-1, 1, 12).tolist(),
    q.gauss_legendre(30).nodes.tolist(),
]


@pytest.mark.parametrize("nodes", NODE_SETS, ids=lambda nodes: f"{len(nodes)}-{nodes[0]:.3g}")
def test_lagrange_matrix_entries_are_accurate_one_by_one(nodes: list[float]) -> None:
    low, span = min(nodes), max(max(nodes) - min(nodes), 0.1)
    points = [*nodes, *(low + span * t for t in (-0.7, 0.05, 0.31, 0.77, 1.4))]
    got = lagrange.lagrange_matrix(nodes, points)
    assert got.shape == (len(points), len(nodes))
    np.testing.assert_allclose(got, exact_basis(nodes, points), rtol=1e-15 * (8 + 4 * len(nodes)))
    assert (got[: len(nodes)] == np.eye(len(nodes))).all()


@pytest.mark.parametrize("nodes", NODE_SETS, ids=lambda nodes: f"{len(nodes)}-{nodes[0]:.3g}")
def test_taylor_coefficients_sum_to_the_basis(nodes: list[float]) -> None:
    """Entry by entry, past the nodes, where nothing cancels."""
    centre, span = max(nodes), max(max(nodes) - min(nodes), 0.1)
    points = centre + span * np.array([0.0, 0.01, 0.7, 2.0])
    powers = (points - centre)[:, None] ** np.arange(len(nodes))
    got = powers @ lagrange.lagrange_taylor(nodes, centre)
    exact = exact_basis(nodes, points.tolist())
    np.testing.assert_allclose(got, exact, rtol=1e-14 * len(nodes))


@pytest.mark.parametrize("nodes", NODE_SETS, ids=lambda nodes: f"{len(nodes)}-{nodes[0]:.3g}")
def test_lagrange_integrals_are_exact_to_rounding(nodes: list[float]) -> None:
    low, span = min(nodes), max(max(nodes) - min(nodes), 0.1)
    lower = nodes[-1]
    uppers = [lower, *(low + span * t for t in (-0.5, 0.2, 1.0, 1.5))]
    got = lagrange.lagrange_integrals(nodes, uppers, lower)
    exact = exact_integrals(nodes, uppers, lower)
    assert (got[0] == 0).all()
    # The basis changes sign, so rounding is relative to the integral of its modulus.
    grid = np.linspace(0, 1, 50)
    for i, upper in enumerate(uppers):
        reach = np.abs(lagrange.lagrange_matrix(nodes, lower + (upper - lower) * grid)).max()
        np.testing.assert_allclose(got[i], exact[i], rtol=0, atol=1e-14 * reach * span * 1.5)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_interpolation_reproduces_polynomials(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    nodes = rng.permutation(np.cumsum(rng.uniform(0.2, 1.0, n)) - 2.0)
    domain = [nodes.min() - 1.0, nodes.max() + 1.0]
    polynomial = Legendre(rng.uniform(-1, 1, n), domain=domain)
    points = rng.uniform(*domain, 7)
    basis = lagrange.lagrange_matrix(nodes, points)
    size = np.abs(basis).sum(axis=1).max()
    np.testing.assert_allclose(
        basis @ polynomial(nodes), polynomial(points), rtol=0, atol=3e-14 * size * n
    )
    lower = float(points[0])
    got = lagrange.lagrange_integrals(nodes, points, lower) @ polynomial(nodes)
    exact = polynomial.integ(lbnd=lower)(points)
    np.testing.assert_allclose(got, exact, rtol=0, atol=3e-14 * size * n * (domain[1] - domain[0]))


def test_lagrange_integrals_agree_with_the_rules() -> None:
    for rule in (q.gauss_legendre(8), q.gauss_lobatto(5), q.radau_right(12), q.clenshaw_curtis(20)):
        got = lagrange.lagrange_integrals(rule.nodes, [*rule.nodes, 1.0])
        np.testing.assert_allclose(got[:-1], rule.integration_matrix, rtol=0, atol=2e-15)
        np.testing.assert_allclose(got[-1], rule.weights, rtol=0, atol=2e-15)


def test_empty_points_are_allowed() -> None:
    assert lagrange.lagrange_matrix([0.0, 1.0], []).shape == (0, 2)
    assert lagrange.lagrange_integrals([0.0, 1.0], []).shape == (0, 2)


def test_barycentric_weights() -> None:
    nodes = np.array([0.0, 1.0, 4.0])
    np.testing.assert_allclose(
        lagrange.barycentric_weights(nodes), [1 / 4, -1 / 3, 1 / 12], rtol=1e-15
    )
    assert lagrange.barycentric_weights([7.0]).tolist() == [1.0]
    many = lagrange.barycentric_weights(
        1e-3 * q.gauss_legendre(128).nodes
    )  # the plain products: 1e380
    assert np.isfinite(many).all()
    assert (many != 0).all()


@pytest.mark.parametrize("function", [lagrange.lagrange_matrix, lagrange.lagrange_integrals])
@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([0.5, 1.0, 0.5], r"nodes must be distinct, nodes 0 and 2 are 0\.5 and 0\.5"),
        ([0.5, 0.5], "nodes must be distinct, nodes 0 and 1"),
        ([0.0, float("nan")], "nodes must be finite, node 1 is nan"),
        ([float("inf"), 0.0, 1.0], "nodes must be finite, node 0 is inf"),
        ([float("nan")], "nodes must be finite, node 0 is nan"),
        ([], r"nodes must be one-dimensional and not empty, got shape \(0,\)"),
        ([[0.0, 1.0]], r"one-dimensional and not empty, got shape \(1, 2\)"),
        ([0.0, 5e-324], "nodes must be distinct, nodes 0 and 1"),
    ],
)
def test_helper_errors(function, nodes: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        function(nodes, [0.5])
    with pytest.raises(ValueError, match=message):
        lagrange.barycentric_weights(nodes)


def test_helper_argument_shapes() -> None:
    with pytest.raises(ValueError, match=r"points must be one-dimensional, got shape \(\)"):
        lagrange.lagrange_matrix([0.0, 1.0], 0.5)
    with pytest.raises(ValueError, match=r"uppers must be one-dimensional, got shape \(1, 1\)"):
        lagrange.lagrange_integrals([0.0, 1.0], [[0.5]])
    with pytest.raises(ValueError, match="at most 256 nodes, got 257"):
        lagrange.lagrange_integrals(np.arange(257.0), [0.5])
