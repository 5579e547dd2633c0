"""Any text at all is a target or is refused with one that would do; what is refused names nothing of ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.api.vpc.targets import SERVICE, BadTarget, Target, find

NAMES = {
    "us-south": "private.smtp.us-south.test",
    "us-east": "private.smtp.us-south.test",
    "eu-de": "private.smtp.eu-de.test",
}
segments = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["crn", "v1", "bluemix", "public", SERVICE, "us-south", "eu-de", "", "endpoint", *NAMES.values()]),
)
crns = st.one_of(st.text(max_size=600), st.lists(segments, min_size=9, max_size=11).map(":".join))


@given(crns)
def test_any_text_gives_a_target_or_says_what_would(text: str) -> None:
    try:
        found = find(text, NAMES)
    except BadTarget as error:
        said = str(error)
        assert f"crn:v1:bluemix:public:{SERVICE}:us-south:::endpoint:private.smtp.us-south.test" in said
        assert len(said) < 1200
    else:
        assert NAMES[found.region] == found.name
        parts = text.split(":")
        assert parts[4] == SERVICE and (parts[5] == found.region or parts[9].lower().rstrip(".") == found.name)


@given(st.sampled_from(sorted(NAMES)), st.text("abcdef0123456789-", max_size=36))
def test_an_instance_of_a_region_means_the_regions_endpoint(region: str, instance: str) -> None:
    assert find(f"crn:v1:bluemix:public:{SERVICE}:{region}:a/acc:{instance}::", NAMES) == Target(region, NAMES[region])


@given(st.sampled_from(sorted(set(NAMES.values()))), st.sampled_from(["", "global", "us-south", "us-east", "eu-de"]))
def test_a_name_means_itself_unless_its_region_says_otherwise(name: str, region: str) -> None:
    crn = f"crn:v1:bluemix:public:{SERVICE}:{region}:::endpoint:{name.upper()}."
    if region in NAMES and NAMES[region] != name:
        with pytest.raises(BadTarget, match="does not serve"):
            find(crn, NAMES)
    else:
        found = find(crn, NAMES)
        assert found.name == name and found.region == (region if region in NAMES else found.region)


@pytest.mark.parametrize(
    ("crn", "why"),
    [
        ("", "ten segments"),
        ("crn:v1:bluemix:public:cloud-object-storage:us-south:::endpoint:s3.test", "service 'cloud-object-storage'"),
        (f"crn:v1:bluemix:public:{SERVICE}:us-south:::endpoint:private.us-south.test", "no private SMTP endpoint"),
        (f"crn:v1:bluemix:public:{SERVICE}:mars:a/acc:guid::", "region 'mars'"),
        (f"crn:v2:bluemix:public:{SERVICE}:us-south:a/acc:guid::", "ten segments"),
        (f"crn:v1:bluemix:public:{SERVICE}:us-south:a/acc:{'g' * 600}::", "ten segments"),
    ],
)
def test_bad_targets(crn: str, why: str) -> None:
    with pytest.raises(BadTarget, match=why):
        find(crn, NAMES)


def test_without_endpoints_nothing_is_suggested() -> None:
    with pytest.raises(BadTarget, match="no private endpoint is configured"):
        find(f"crn:v1:bluemix:public:{SERVICE}:us-south:a/acc:guid::", {})
