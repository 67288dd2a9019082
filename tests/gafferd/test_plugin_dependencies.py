"""The order of plugins that need each other, and those that can't be used."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gafferd.plugins.dependencies import Named, resolve

pytestmark = pytest.mark.pure


def named(text: str) -> list[Named]:
    """Plugins from words such as `a:b,c`: the plugin a needs b and c."""
    plugins: list[Named] = []
    for word in text.split():
        name, _, needed = word.partition(":")
        plugins.append(Named(name, tuple(filter(None, needed.split(","))), f"/{len(plugins)}"))
    return plugins


@pytest.mark.row("PLG-13")
@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("", ""),
        ("b a", "b a"),
        ("a:b b", "b a"),
        ("a:c b:a c d", "c a b d"),
        ("a:b,c,b b:d c:d d", "d b c a"),
        ("a:b,c c b", "b c a"),
        ("a:x b", "b"),
        ("a:b b:x c", "c"),
        ("a:a b", "b"),
        ("a:b b:c c:a d e:a", "d"),
        ("a a b:a", "a b"),
    ],
)
def test_each_comes_after_those_it_needs(text: str, order: str) -> None:
    plugins = named(text)
    assert [plugins[index].name for index in resolve(plugins, {}).order] == order.split()


@pytest.mark.row("PLG-13")
@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("a:x", ["it needs the plugin 'x', which is not installed"]),
        ("a:bad", ["it needs the plugin 'bad', which can't be used"]),
        (
            "a:b b:x",
            ["it needs the plugin 'b', which can't be used", "it needs the plugin 'x', which is not installed"],
        ),
        (
            "a:b b:c c:a",
            [f"it needs itself: {way}" for way in ("a -> b -> c -> a", "b -> c -> a -> b", "c -> a -> b -> c")],
        ),
        ("a:a", ["it needs itself: a -> a"]),
        ("a:b b:b", ["it needs the plugin 'b', which can't be used", "it needs itself: b -> b"]),
        ("a a", ["", "the plugin in /0 has the same name"]),
    ],
)
def test_each_that_is_left_out_says_why(text: str, faults: list[str]) -> None:
    found = resolve(named(text), {"bad": "it is broken"}).faults
    assert [found.get(index, "") for index in range(len(faults))] == faults


NAMES = st.sampled_from("abcdef")


@given(st.lists(st.builds(Named, NAMES, st.lists(NAMES, max_size=3).map(tuple), st.just("/")), max_size=8))
def test_every_plugin_is_used_after_those_it_needs_or_has_a_fault(plugins: list[Named]) -> None:
    order, faults = resolve(plugins, {})
    assert sorted([*order, *faults]) == list(range(len(plugins)))
    for position, index in enumerate(order):
        before = {plugins[each].name for each in order[:position]}
        assert before >= {*plugins[index].mandatory}
        assert plugins[index].name not in before
