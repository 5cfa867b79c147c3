"""What a notice posts and when, and which addresses are taken; without a server."""

import json
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from flows import notices
from flows.config import ConfigurationError
from flows.home import Home
from flows.notices import EVENTS, TEST_EVENT, Overdue, automation, install_notice, notify
from flows.server import ServerNotStarted

BLOCK = UUID("00000000-0000-4000-8000-000000000000")


def rendered(event: dict[str, Any]) -> dict[str, Any]:
    """The payload as Prefect's server makes it of an event."""
    from prefect.server.utilities.user_templates import render_user_template_sync

    (action,) = automation(BLOCK).actions
    found = SimpleNamespace(**{"payload": {}, "resource": {}, "occurred": "2026-01-01", **event})
    return dict(json.loads(render_user_template_sync(action.payload, {"event": found})))


def test_violations_regressions_failures_and_crashes_are_posted_each_once() -> None:
    made = automation(BLOCK)
    assert made.enabled
    assert made.trigger.expect == {*EVENTS, TEST_EVENT}
    assert {"gclflow.contract.violated", "gclflow.run.regressed"} < set(EVENTS)
    assert {"prefect.flow-run.Failed", "prefect.flow-run.Crashed"} < set(EVENTS)
    assert (made.trigger.threshold, made.trigger.within.total_seconds()) == (1, 0)
    assert [action.type for action in made.actions] == ["call-webhook"]
    sent_by_an_update = made.model_dump(mode="json", exclude_unset=True)
    assert sent_by_an_update["actions"][0]["type"] == "call-webhook"
    assert sent_by_an_update["trigger"]["type"] == "event"


def test_an_event_of_ours_is_posted_with_run_and_reason() -> None:
    post = rendered(
        {
            "event": "gclflow.run.regressed",
            "resource": {"prefect.resource.id": "gclflow.series.nightly", "prefect.resource.name": "nightly"},
            "payload": {"run": "cora-grace-seed0", "reason": "accuracy fell", "rows": [1]},
        }
    )
    assert post["text"] == "gclflow.run.regressed: cora-grace-seed0: accuracy fell"
    assert (post["run"], post["reason"]) == ("cora-grace-seed0", "accuracy fell")
    assert post["details"]["rows"] == [1]


def test_a_failed_run_is_posted_with_its_state_message() -> None:
    post = rendered(
        {
            "event": "prefect.flow-run.Crashed",
            "resource": {"prefect.resource.name": "cora-grace-seed0", "prefect.state-message": "killed"},
            "payload": {"validated_state": {"message": "long"}},
        }
    )
    assert (post["run"], post["reason"], post["details"]) == ("cora-grace-seed0", "killed", {})


@pytest.mark.parametrize(
    "payload", [{}, {"reason": None}, {"reason": '"}\n{{ event }}</script>' + "x" * 9000}]
)
def test_any_payload_makes_a_valid_document(payload: dict[str, Any]) -> None:
    post = rendered({"event": "gclflow.contract.violated", "payload": payload})
    assert post["reason"] == (payload.get("reason") or "")[:3000]
    assert len(post["text"]) <= 2000
    assert not set("<>") & set(post["text"])


@pytest.mark.parametrize(
    "url", ["", "hooks.example.com", "ftp://h/x", "file:///etc/passwd", "http://", "http://h:99999/", "http://h/\n",
            "http://h/a b", "javascript:alert(1)", "http://[", "https://h/" + "x" * 2000],
)  # fmt: skip
def test_what_is_no_web_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        install_notice(url, {})
    assert "x" * 50 not in str(caught.value)
    assert "passwd" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "A", "a b", "../x", "x" * 65, "a_b"])
def test_a_name_is_plain(name: str) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        notify("http://127.0.0.1:9/x", name=name)


def test_without_a_server_that_stays_there_is_nothing_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(ConfigurationError, match="gclflow up"):
        notify("http://127.0.0.1:9/x")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(ServerNotStarted, match="does not answer"):
        notify(None, remove=True)


def test_it_takes_an_address_or_something_else_to_do() -> None:
    with pytest.raises(ConfigurationError, match="address"):
        notify(None)
    with pytest.raises(ConfigurationError, match="address"):
        notify(None, test=True, overdue=Overdue("nightly", timedelta(hours=26)))


def test_names_of_notices_are_kept_beside_the_server_they_are_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GCLFLOW_HOME", str(tmp_path / "home"))
    here = {"PREFECT_API_URL": "http://127.0.0.1:4200/api"}
    monkeypatch.setattr(notices, "client_environment", lambda home: here)
    monkeypatch.setattr(notices, "lasting_server", lambda: here)
    monkeypatch.setattr(notices, "install_notice", lambda *_, **__: None)
    monkeypatch.setattr(notices, "remove_notice", lambda *_, **__: True)
    for name in ("mine", "gclflow-notices", "mine"):
        notify("http://127.0.0.1:9/x", name=name)
    assert Home().read("notices") == {"names": ["gclflow-notices", "mine"]}
    notify(None, remove=True)
    assert Home().read("notices") == {"names": ["mine"]}
    monkeypatch.setattr(notices, "lasting_server", lambda: {"PREFECT_API_URL": "https://example.org/api"})
    notify("http://127.0.0.1:9/x", name="elsewhere")
    assert Home().read("notices") == {"names": ["mine"]}
