"""Notices: a Prefect automation that posts what went wrong to a webhook.

The Prefect server posts, not the run: a run that was killed cannot tell. Of the actions a self-hosted server
has, `CallWebhook` with a `Webhook` block is used: the block keeps its address as a secret (encrypted in the
server's database, masked in the UI), and its payload is a template of ours. Custom notification blocks keep
the address in the clear.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flows.config import ConfigurationError
from flows.home import Home
from flows.server import client_environment, lasting_server
from tasks.events import RUN_FINISHED, resource
from tasks.runs import SeriesName

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events import AutomationCore

NAME = "gclflow-notices"
EVENTS = (
    "gclflow.contract.violated",
    "gclflow.run.regressed",
    "prefect.flow-run.Failed",
    "prefect.flow-run.Crashed",
)
TEST_EVENT = "gclflow.notice.test"
OVERDUE_EVENT = "gclflow.series.overdue"
WATCHED_EVENT = "gclflow.series.watched"
"""Sent once by `notify`: from then on the first good run of a series is waited for."""
_MAX_URL = 2_000


@dataclass(frozen=True)
class Overdue:
    """When a series counts as overdue.

    Attributes:
        series: its name.
        after: how long after its last good run; at least ten seconds.
    """

    series: SeriesName
    after: timedelta


# Chat programs show `text`; they read <, > and & as markup, and the reason may quote data.
_PAYLOAD = """
{%- set run = (event.payload.run or event.resource["prefect.resource.name"] or "") | string -%}
{%- set reason = (event.payload.reason or event.resource["prefect.state-message"] or "") | string -%}
{%- set words = (event.event ~ ": " ~ run ~ ": " ~ reason)[:1500] -%}
{
 "text": {{ words | replace("&", "&amp;") | replace("<", "&lt;") | replace(">", "&gt;") | tojson }},
 "event": {{ event.event | tojson }},
 "run": {{ run | tojson }},
 "reason": {{ reason[:3000] | tojson }},
 "resource": {{ event.resource["prefect.resource.id"] | default("") | tojson }},
 "occurred": {{ event.occurred | string | tojson }},
 "details": {% if event.event.startswith("gclflow.") %}{{ event.payload | tojson }}{% else %}{}{% endif %}
}"""

# The event at hand is the last good run's, or begins the watch: what should have followed it did not come.
_OVERDUE_PAYLOAD = """
{%- set series = event.resource["prefect.resource.name"] | string -%}
{%- set since = "" if event.event == "gclflow.run.finished" else "it is watched, " -%}
{%- set reason = "no good run since " ~ since ~ event.occurred -%}
{
 "text": {{ ("gclflow.series.overdue: " ~ series ~ ": " ~ reason) | tojson }},
 "event": "gclflow.series.overdue",
 "run": "",
 "reason": {{ reason | tojson }},
 "resource": {{ event.resource["prefect.resource.id"] | tojson }},
 "occurred": {{ event.occurred | string | tojson }},
 "details": {}
}"""


def notify(
    url: str | None,
    *,
    name: str = NAME,
    remove: bool = False,
    test: bool = False,
    overdue: Overdue | None = None,
) -> str:
    """Install or remove a notice on the server that stays; returns what was done, in words.

    Args:
        url: where to post; none only to remove, or to test what is installed.
        name: of the notice.
        remove: remove it instead.
        test: send an event that it posts.
        overdue: when to post that a series has had no good run; none never does.

    Raises:
        ConfigurationError: there is no server, or no address.
    """
    if url is None and (overdue or not (remove or test)):
        raise ConfigurationError("notify takes an address to post to (or --remove, --test)")
    if url is not None:
        _check(url, name)
    environment = _server()
    if remove:
        was_there = remove_notice(environment, name=name)
        _remember(environment, name, is_installed=False)
        return "removed" if was_there else "there was none"
    if url is not None:
        install_notice(url, environment, name=name, overdue=overdue)
        _remember(environment, name, is_installed=True)
    if test:
        _send_test(environment, name)
    done = ["installed"] if url is not None else []
    return ", ".join([*done, *(["a test notice is on its way"] if test else [])])


def _remember(environment: Mapping[str, str], name: str, *, is_installed: bool) -> None:
    """Note the name beside the server of `gclflow up`: should its database be lost, the doctor tells."""
    home = Home()
    if client_environment(home).get("PREFECT_API_URL") != environment["PREFECT_API_URL"]:
        return
    with home.locked():
        names = set(home.read("notices").get("names", ())) - {name}
        home.write("notices", {"names": sorted(names | ({name} if is_installed else set()))})


def install_notice(
    url: str,
    environment: Mapping[str, str],
    *,
    events: Sequence[str] = EVENTS,
    name: str = NAME,
    overdue: Overdue | None = None,
) -> None:
    """Have the server post to `url` on these events; what was installed under the same name is replaced.

    Args:
        url: where to, http or https; it is kept as a secret.
        environment: PREFECT_API_URL, and PREFECT_API_AUTH_STRING where the server asks for it.
        events: names of events, of gclflow or of flow runs.
        name: of the block and the automation; small letters, digits and dashes.
        overdue: when to post that a series has had no good run, by an automation of its own; none removes
            what was installed of that kind.

    Raises:
        ConfigurationError: the address or the name is not what it must be.
    """
    _check(url, name)
    from flows.deploy import connect

    with connect(environment) as client:
        block = _save_block(client, url, name)
        late = None if overdue is None else overdue_automation(block, overdue, name=name)
        is_new = _save_automation(client, _overdue_name(name), late)
        _save_automation(client, name, automation(block, events=events, name=name))
        if overdue is not None and is_new:
            _send(client, WATCHED_EVENT, resource("series", overdue.series), {})


def _save_automation(client: "SyncPrefectClient", name: str, wanted: "AutomationCore | None") -> bool:
    """Create, replace or, for none, delete the automation of a name; returns whether anything was changed.

    One that is as wanted is left alone: replaced, it would forget the deadlines that it waits for.
    """
    known = client.read_automations_by_name(name)
    for extra in known[1 if wanted else 0 :]:
        client.delete_automation(extra.id)
    if wanted is None:
        return bool(known)
    if known and _is_same(known[0], wanted):
        if not known[0].enabled:
            client.resume_automation(known[0].id)
        return False
    if known:
        client.update_automation(known[0].id, wanted)
    else:
        client.create_automation(wanted)
    return True


def _is_same(known: "AutomationCore", wanted: "AutomationCore") -> bool:
    """Whether two automations do the same; what the server adds, and the switch, apart."""
    fields = {"name", "description", "trigger", "actions"}
    return known.model_dump(include=fields) == wanted.model_dump(include=fields)


def remove_notice(environment: Mapping[str, str], *, name: str = NAME) -> bool:
    """Remove block and automation; returns whether there was anything."""
    from prefect.exceptions import ObjectNotFound

    from flows.deploy import connect

    with connect(environment) as client:
        was_there = [_save_automation(client, known, None) for known in (name, _overdue_name(name))]
        try:
            block = client.read_block_document_by_name(name, "webhook")
            client.delete_block_document(block.id)
        except ObjectNotFound:
            return any(was_there)
    return True


def automation(block: "UUID", *, events: Sequence[str] = EVENTS, name: str = NAME) -> "AutomationCore":
    """One post for each of these events that the server receives."""
    from prefect.events import AutomationCore, CallWebhook, EventTrigger, Posture, ResourceSpecification

    wanted = AutomationCore(
        name=name,
        description="Posts contract violations, regressed runs, failed and crashed runs (gclflow notify).",
        enabled=True,
        trigger=EventTrigger(
            expect={*events, TEST_EVENT},
            match=ResourceSpecification({"prefect.resource.id": ["gclflow.*", "prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[CallWebhook(block_document_id=block, payload=_PAYLOAD)],
    )
    return _whole(wanted)


def overdue_automation(block: "UUID", overdue: Overdue, *, name: str = NAME) -> "AutomationCore":
    """One post when a good run of a series was not followed by another in time; the next one arms it anew.

    Before the first good run, `WATCHED_EVENT` arms it.
    """
    from prefect.events import AutomationCore, CallWebhook, EventTrigger, Posture, ResourceSpecification

    wanted = AutomationCore(
        name=_overdue_name(name),
        description=f"Posts that {overdue.series} has had no good run for too long (gclflow notify).",
        enabled=True,
        trigger=EventTrigger(
            after={RUN_FINISHED, WATCHED_EVENT},
            expect={RUN_FINISHED},
            for_each={"prefect.resource.id"},  # without it the server opens windows that no event has begun
            match=ResourceSpecification(
                {"prefect.resource.id": [resource("series", overdue.series)["prefect.resource.id"]]}
            ),
            posture=Posture.Proactive,
            threshold=1,
            within=overdue.after,
        ),
        actions=[CallWebhook(block_document_id=block, payload=_OVERDUE_PAYLOAD)],
    )
    return _whole(wanted)


def _overdue_name(name: str) -> str:
    return f"{name}-overdue"


def _whole(automation: "AutomationCore") -> "AutomationCore":
    """The automation with all its fields set; an update sends no others.

    The types that tell actions apart are among them; an owner must not be.
    """
    core = type(automation)
    return core.model_validate(automation.model_dump(mode="json", exclude={"owner_resource"}))


def _server() -> dict[str, str]:
    """How to reach the server that outlives a run."""
    if found := lasting_server():
        return found
    raise ConfigurationError(
        "notices need a Prefect server that stays: start one with gclflow up, or set PREFECT_API_URL"
    )


def _send_test(environment: Mapping[str, str], name: str) -> None:
    """An event that every notice posts."""
    from flows.deploy import connect

    about = {"prefect.resource.id": f"gclflow.notice.{name}", "prefect.resource.name": name}
    with connect(environment) as client:
        _send(client, TEST_EVENT, about, {"reason": "notices arrive here"})


def _send(
    client: "SyncPrefectClient", event: str, about: Mapping[str, str], payload: Mapping[str, str]
) -> None:
    """Send an event over HTTP: nothing is queued when this process ends."""
    from prefect.events import Event, Resource

    made = Event(event=event, resource=Resource(dict(about)), payload=dict(payload))
    client.request("POST", "/events", json=[made.model_dump(mode="json")]).raise_for_status()


def _save_block(client: "SyncPrefectClient", url: str, name: str) -> "UUID":
    """The block document that holds the address."""
    from prefect.client.schemas.actions import BlockDocumentCreate, BlockDocumentUpdate
    from prefect.exceptions import ObjectNotFound

    data = {"url": url, "method": "POST", "headers": {"Content-Type": "application/json"}}
    kind = client.read_block_type_by_slug("webhook")
    schema = client.get_most_recent_block_schema_for_block_type(kind.id)
    if schema is None:
        raise ConfigurationError("this Prefect server has no webhook blocks")
    try:
        known = client.read_block_document_by_name(name, "webhook")
    except ObjectNotFound:
        document = BlockDocumentCreate(name=name, data=data, block_schema_id=schema.id, block_type_id=kind.id)
        return client.create_block_document(document).id
    client.update_block_document(
        known.id,
        BlockDocumentUpdate(data=data, block_schema_id=schema.id, merge_existing_data=False),
    )
    return known.id


def _check(url: str, name: str) -> None:
    """Refuse what is no web address, without repeating it: it may hold a secret."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or len(url) > _MAX_URL or not url.isprintable() or " " in url:
        raise ConfigurationError("notices take a web address to post to, http://... or https://...")
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", name):
        raise ConfigurationError(f"a notice's name has small letters, digits and dashes; got {name!r:.80}")
