"""The UI as a newcomer uses it: up, log in, start a run by its form, look at it, run one stage again."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.home import Home
from tests.browser.chromium import Browser, chromium
from tests.standing import flow_runs, gclflow

pytestmark = pytest.mark.slow
STAGES = ("ingest", "smooth", "train", "uncertainty", "cluster", "evaluate", "report")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("ui")
    try:
        yield folder
    finally:
        gclflow(folder, "down")


@pytest.fixture(scope="module")
def browser(folder: Path) -> Iterator[Browser]:
    gclflow(folder, "up")
    home = folder / ".gclflow"
    port = json.loads((home / "server.json").read_text())["port"]
    with chromium(f"http://127.0.0.1:{port}") as browser:
        browser.open("/")
        browser.find("//input[@type='password']").send_keys(
            json.loads((home / "auth.json").read_text())["auth"]
        )
        browser.picture("login")
        browser.click("//button[@type='submit']")
        browser.find("//a[contains(., 'Deployments')]")
        yield browser


def open_form(browser: Browser, deployment: str) -> None:
    browser.open("/v2/deployments?limit=50")
    browser.click(f"//a[normalize-space()='{deployment}']")
    browser.click("//button[contains(., 'Run')]")
    browser.click("//*[@role='menuitem'][contains(., 'Custom run')]")
    browser.find("//h2[contains(., 'Parameters')] | //*[normalize-space()='Parameters']")


def open_artifact(browser: Browser, key: str) -> None:
    browser.open(f"/v2/artifacts/key/{key}")
    browser.click("//a[contains(@href, '/artifacts/artifact/')]")


def submit_and_watch(browser: Browser, folder: Path) -> None:
    home = Home(folder / ".gclflow")
    before = {run.id for run in flow_runs(home)}

    def submitted() -> object:
        started = {run.id for run in flow_runs(home)} - before
        if not started:  # the button takes no click while the form is being checked
            browser.find("//button[normalize-space()='Submit']").click()
        return next(iter(started), None)

    run = browser.wait(submitted, what="the run's start", pause=3.0)
    browser.open(f"/v2/runs/flow-run/{run}")
    browser.wait_for_text("Task Runs")
    browser.find("//*[normalize-space(text())='Completed']", seconds=300)  # its badge; the log says more


def test_a_run_is_started_by_its_form_and_its_artifacts_tell_its_story(
    browser: Browser, folder: Path
) -> None:
    open_form(browser, "nightly")
    browser.wait_for_text("stages to compute again")
    browser.picture("form")
    submit_and_watch(browser, folder)
    browser.picture("run")
    assert "digits-dmat_i-seed0" in browser.text
    record = json.loads((folder / "out" / "nightly" / "run.json").read_text())
    assert [stage["state"] for stage in record["stages"]] == ["ran"] * 7
    browser.open("/v2/artifacts")
    for key in ("stages", "metrics", "lineage", "contracts", "plot-losses", "plot-risk-coverage"):
        browser.wait_for_text(key)
    browser.picture("artifacts")
    open_artifact(browser, "stages")
    browser.wait_for_text("first run of this stage in this store")
    open_artifact(browser, "plot-embedding-clusters")
    browser.wait(
        lambda: browser.driver.execute_script(
            "return [...document.images].some(i => i.src.startsWith('data:image/png') && i.width > 100)"
        ),
        what="the plot",
    )
    browser.picture("plot")


def test_one_stage_again_runs_that_stage_alone(browser: Browser, folder: Path) -> None:
    open_form(browser, "train")
    submit_and_watch(browser, folder)
    browser.picture("stage-again")
    browser.wait_for_text("refresh was asked for")
    record = json.loads((folder / "out" / "nightly" / "run.json").read_text())
    states = {stage["stage"]: stage["state"] for stage in record["stages"]}
    assert states == {stage: "ran" if stage == "train" else "cached" for stage in STAGES}
