"""S12: warnings about a Prefect server that others can reach, and URLs fit to be shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.server_safety import is_loopback, server_warnings, without_userinfo

REMOTE = {"PREFECT_API_URL": "https://prefect.example.org/api"}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"PREFECT_API_URL": ""},
        {"PREFECT_API_URL": "http://127.0.0.1:4200/api"},
        {"PREFECT_API_URL": "http://localhost:4200/api"},
        {"PREFECT_API_URL": "http://[::1]:4200/api"},
        REMOTE | {"PREFECT_API_AUTH_STRING": "name:word"},
        REMOTE | {"PREFECT_API_KEY": "key"},
        {"PREFECT_SERVER_API_HOST": "127.0.0.1"},
        {"PREFECT_SERVER_API_HOST": "0.0.0.0", "PREFECT_SERVER_API_AUTH_STRING": "name:word"},
    ],
)
def test_safe_settings_give_no_warning(settings: dict[str, str]) -> None:
    assert server_warnings(settings) == []


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (REMOTE, "no authentication is set"),
        (REMOTE | {"PREFECT_API_AUTH_STRING": ""}, "no authentication is set"),
        ({"PREFECT_API_URL": "https://0.0.0.0:4200/api"}, "no authentication is set"),
        ({"PREFECT_API_URL": "https://127.0.0.1.example.org/api"}, "no authentication is set"),
        ({"PREFECT_API_URL": "https://localhost@example.org/api"}, "no authentication is set"),
        (
            {"PREFECT_API_URL": "http://10.0.0.2:4200/api", "PREFECT_API_AUTH_STRING": "a:b"},
            "is not https",
        ),
        ({"PREFECT_API_URL": "http://name:word@127.0.0.1/api"}, "PREFECT_API_AUTH_STRING"),
        ({"PREFECT_API_URL": "no url"}, "is not a URL"),
        ({"PREFECT_API_URL": "http://[::1"}, "is not a URL"),
        ({"PREFECT_SERVER_API_HOST": "0.0.0.0"}, "listens on 0.0.0.0"),
        ({"PREFECT_SERVER_API_HOST": "::"}, "listens on ::"),
    ],
)
def test_what_others_can_reach_is_warned_about(settings: dict[str, str], told: str) -> None:
    assert told in " ".join(server_warnings(settings))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost", "LOCALHOST.", "::ffff:127.0.0.1"]
)
def test_loopback_is_recognised(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["", "0.0.0.0", "::", "127.0.0.1.example.org", "localhost.example.org", "10.0.0.1", "::ffff:10.0.0.1"],
)
def test_nothing_else_is_taken_for_loopback(host: str) -> None:
    assert not is_loopback(host)


_words = st.text("abcXYZ019%-_!", min_size=1, max_size=12)


@given(user=_words, word=_words, host=st.sampled_from(["127.0.0.1:4200", "example.org", "[::1]:80", "[::1"]))
def test_no_secret_of_a_url_is_ever_shown(user: str, word: str, host: str) -> None:
    secret = f"canary{word}"
    for url in (f"https://{user}:{secret}@{host}/api", f"http://{secret}@{host}/api?x=1"):
        assert secret not in without_userinfo(url)
        assert host in without_userinfo(url)
        assert secret not in " ".join(server_warnings({"PREFECT_API_URL": url}))


def test_a_url_without_userinfo_stays_as_it_is() -> None:
    for url in ("http://127.0.0.1:4200/api", "https://example.org/a@b?c=d@e"):
        assert without_userinfo(url) == url
