"""Which folder counts, held against the rule as it is written: all suffixes active, the most of them, else a tie."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.mailer.folders import ConfigFile, Configurations, OldFile
from outgate.mailer.values import ConfigError

_MODES = ("author", "publish", "dev", "stage", "prod")
_FOLDERS = [modes for length in range(3) for modes in itertools.combinations(_MODES, length)]


@given(
    folders=st.lists(st.sampled_from(_FOLDERS), unique=True, max_size=8),
    others=st.lists(st.sampled_from(_FOLDERS), unique=True, max_size=3),
    active=st.sets(st.sampled_from(_MODES)),
    old=st.sets(st.sampled_from(_FOLDERS), max_size=2),
)
def test_the_most_active_run_modes_or_an_error(
    folders: list[tuple[str, ...]], others: list[tuple[str, ...]], active: set[str], old: set[tuple[str, ...]]
) -> None:
    files = [ConfigFile("a.b.C", modes, ".".join(("config", *modes)), b"{}") for modes in folders]
    files += [ConfigFile("a.b.D", modes, "other", b"{}") for modes in others]
    found = Configurations("x", tuple(files), tuple(OldFile("a.b.C", modes, "old") for modes in old))
    matching = [modes for modes in (*folders, *old) if set(modes) <= active]
    most = max((len(modes) for modes in matching), default=-1)
    winners = [modes for modes in matching if len(modes) == most]
    if len(winners) == 1 and winners[0] not in old:
        assert found.resolve("a.b.C", active).run_modes == winners[0]
    else:
        with pytest.raises(ConfigError) as caught:
            found.resolve("a.b.C", active)
        said = "no config folder" if not winners else "old format" if old & set(winners) else "equally well"
        assert said in str(caught.value)
    best_first = [len(file.run_modes) for file in found.candidates("a.b.C", active)]
    assert best_first == sorted((len(modes) for modes in folders if set(modes) <= active), reverse=True)
