# SPDX-License-Identifier: Apache-2.0
"""
A real Airflow, its page in a real browser, and a sandbox that the page's connection leads to.

One Airflow and one browser serve all tests. Each test ends with a picture of its page in ``.screenshots``, in a
folder for the version of Airflow, whatever came of it; ``picture`` takes those that the documentation shows.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import airflow as installed
import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from airflow_provider_chartmogul.sandbox import Sandbox
from dev.real_airflow import RealAirflow
from tests.browser.pages import Airflow2Page, Airflow3Page, AirflowPage

ROOT = Path(__file__).parents[2]
API_KEY = "the-secret-api-key-of-the-browser-test"

#: Milliseconds for a page to get where it should: machines may be slow, and nothing is gained by giving up early.
PATIENCE = 120_000

#: What a machine that runs only tests needs of a browser, and nothing that would call its maker.
SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def screenshots() -> Path:
    folder = ROOT / ".screenshots" / ".".join(installed.__version__.split(".")[:2])
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(api_key=API_KEY, export_seconds=2) as running:
        yield running


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lake")


@pytest.fixture(scope="session")
def airflow(lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealAirflow]:
    """Airflow with the examples that are used here, and without a connection: that is for the form to make."""
    dags = tmp_path_factory.mktemp("dags")
    for name in ("example_activities_export", "example_backfill"):
        shutil.copy(ROOT / "example_dags" / f"{name}.py", dags)
    environment = {
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW_VAR_CHARTMOGUL_DESTINATION": f"file://{lake}",
    }
    with RealAirflow(tmp_path_factory.mktemp("airflow"), dags, environment=environment) as running:
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium: Playwright would download one of its own, which no distribution looks after."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        raise RuntimeError("this machine has no Chromium: install it, such as by `apt-get install chromium`")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=SWITCHES)
        yield started
        started.close()


@contextmanager
def in_browser(browser: Browser) -> Iterator[Page]:
    """A tab of nobody's yet: without cookies, and with the same size, language and time zone on every machine."""
    context = browser.new_context(viewport={"width": 1280, "height": 1150}, locale="en-GB", timezone_id="UTC")
    context.set_default_timeout(PATIENCE)
    with context:
        yield context.new_page()


def page_of(airflow: RealAirflow, page: Page) -> AirflowPage:
    """Airflow's page as a person uses it, whichever of the two the installed version has."""
    kind = Airflow2Page if installed.__version__.startswith("2.") else Airflow3Page
    return kind(page, airflow.base_url)


@pytest.fixture
def page(browser: Browser, screenshots: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    with in_browser(browser) as page:
        yield page
        page.screenshot(path=screenshots / f"{request.node.name}.png")


@pytest.fixture
def airflow_page(airflow: RealAirflow, page: Page) -> AirflowPage:
    return page_of(airflow, page)


@pytest.fixture(scope="session")
def connection(airflow: RealAirflow, browser: Browser, sandbox: Sandbox) -> None:
    """The connection that the examples take, made by filling in the form."""
    with in_browser(browser) as page:
        airflow_page = page_of(airflow, page)
        form = airflow_page.new_connection("chartmogul_default", "ChartMogul")
        form.fill(
            {
                **airflow_page.address(sandbox.url),
                "API key": API_KEY,
                "Timeout in seconds": "20.5",
                "Requests per second": "20",
                "Maximum connections": "2",
            }
        )
        form.save()


@pytest.fixture
def picture(screenshots: Path) -> Callable[[Page | Locator, str], None]:
    """Keep a picture of what is shown under a name that the documentation uses."""

    def take(shown: Page | Locator, name: str) -> None:
        shown.screenshot(path=screenshots / f"{name}.png", animations="disabled")

    return take
