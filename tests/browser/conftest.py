# SPDX-License-Identifier: Apache-2.0
"""
Fixtures with a real Airflow, its UI in a real browser, and a sandbox for the UI's connection.

All tests share one Airflow and one browser. After each test, passed or failed, a screenshot of its page is saved in
``.screenshots``, in a folder for the version of Airflow. The fixture ``picture`` saves the documentation's images.
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

#: Time limit for actions and expectations in milliseconds, for slow machines.
TIMEOUT = 120_000

#: Chromium's switches for containers, without background requests to its vendor.
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
    """Run Airflow with two examples, and without the connection, which the tests create in the form."""
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
    """Launch the system's Chromium. Playwright's own would be a download without security updates."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        raise RuntimeError("Chromium is not installed; install it, for example with `apt-get install chromium`")
    expect.set_options(timeout=TIMEOUT)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=SWITCHES)
        yield launched
        launched.close()


@contextmanager
def new_page(browser: Browser) -> Iterator[Page]:
    """Open a page without cookies, with the same size, language and time zone on every machine."""
    context = browser.new_context(viewport={"width": 1280, "height": 1150}, locale="en-GB", timezone_id="UTC")
    context.set_default_timeout(TIMEOUT)
    with context:
        yield context.new_page()


def open_airflow(airflow: RealAirflow, page: Page) -> AirflowPage:
    """Return the page object for the installed version of Airflow."""
    page_class = Airflow2Page if installed.__version__.startswith("2.") else Airflow3Page
    return page_class(page, airflow.base_url)


@pytest.fixture
def page(browser: Browser, screenshots: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    with new_page(browser) as page:
        yield page
        page.screenshot(path=screenshots / f"{request.node.name}.png")


@pytest.fixture
def airflow_page(airflow: RealAirflow, page: Page) -> AirflowPage:
    return open_airflow(airflow, page)


@pytest.fixture(scope="session")
def connection(airflow: RealAirflow, browser: Browser, sandbox: Sandbox) -> None:
    """Create the examples' connection in the form."""
    with new_page(browser) as page:
        airflow_page = open_airflow(airflow, page)
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
    """Return a function that saves a screenshot under the name of one of the documentation's images."""

    def take(target: Page | Locator, name: str) -> None:
        target.screenshot(path=screenshots / f"{name}.png", animations="disabled")

    return take
