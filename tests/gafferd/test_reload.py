import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaffer.config import ProcessConfig
from gaffer.names import JobName
from gafferd.reload import plan

WEB = JobName("default", "web")
DB = JobName("shop", "db")


def config(name="web", cmd="run", **settings):
    return ProcessConfig(name, cmd, **settings)


@pytest.mark.row("GD-19")
@pytest.mark.parametrize(
    ("before", "after", "loaded", "changes"),
    [
        pytest.param({WEB: config()}, {WEB: config()}, {WEB}, [], id="unchanged"),
        pytest.param({}, {WEB: config()}, set(), [(WEB, "add")], id="new"),
        pytest.param({WEB: config()}, {}, {WEB}, [(WEB, "remove")], id="gone"),
        pytest.param({WEB: config()}, {}, set(), [], id="gone, and unloaded by hand before"),
        pytest.param({WEB: config()}, {WEB: config()}, set(), [(WEB, "add")], id="unloaded by hand"),
        pytest.param({}, {}, {DB}, [], id="loaded by hand"),
        pytest.param({}, {DB: config("db")}, {DB}, [(DB, "update")], id="loaded by hand, now in the file"),
        pytest.param({WEB: config()}, {WEB: config(cmd="walk")}, {WEB}, [(WEB, "update")], id="other command"),
        pytest.param({WEB: config()}, {WEB: config(numprocesses=3)}, {WEB}, [(WEB, "scale")], id="other number"),
        pytest.param(
            {WEB: config()},
            {WEB: config(numprocesses=3, cmd="walk")},
            {WEB},
            [(WEB, "update")],
            id="other number and command",
        ),
        pytest.param(
            {WEB: config(port="8000")},
            {WEB: config(port="8000+", numprocesses=3)},
            {WEB},
            [(WEB, "update")],
            id="one port for one, then a port each",
        ),
        pytest.param(
            {WEB: config(), DB: config("db")},
            {JobName("default", "new"): config("new")},
            {WEB, DB},
            [(DB, "remove"), (WEB, "remove"), (JobName("default", "new"), "add")],
            id="removals first, in reverse",
        ),
    ],
)
def test_plan(before, after, loaded, changes):
    assert plan(before, after, loaded) == changes


files = st.dictionaries(
    st.sampled_from([WEB, DB, JobName("shop", "web")]),
    st.builds(config, cmd=st.sampled_from("ab"), numprocesses=st.integers(0, 2)),
)


@given(before=files, after=files, by_hand=st.sets(st.sampled_from([WEB, DB])))
def test_a_reload_leads_to_the_new_file_and_the_next_one_changes_nothing(before, after, by_hand):
    loaded = before.keys() | by_hand
    changes = plan(before, after, loaded)
    assert len({change.job for change in changes}) == len(changes)
    for job, action in changes:
        loaded = loaded - {job} if action == "remove" else loaded | {job}
    assert loaded == after.keys() | (by_hand - before.keys())
    assert plan(after, after, loaded) == []
