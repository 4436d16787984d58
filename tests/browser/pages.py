# SPDX-License-Identifier: Apache-2.0
"""
The pages of Airflow 3 and Airflow 2, as a person sees them: by their labels and buttons.

For connections both offer the same, so that the tests are the same. What is not said by a label is found by what the
page's own parts are called.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from urllib.parse import quote, urlsplit

from playwright.sync_api import Locator, Page, expect

from dev.real_airflow.generations import LOGIN


def labelled(text: str) -> re.Pattern[str]:
    """A label with this text. What has to be filled in has a star behind it."""
    return re.compile(rf"^\s*{re.escape(text)}\s*\*?\s*$")


class ConnectionForm(ABC):
    """The form of one connection, open. ``shown`` is the part of the page it takes."""

    shown: Locator

    def __init__(self, page: Page) -> None:
        self.page = page

    @abstractmethod
    def labels(self) -> list[str]:
        """The labels of what can be filled in for this type, in order."""

    @abstractmethod
    def field(self, label: str) -> Locator:
        """The field with this label, in view."""

    @abstractmethod
    def help(self, label: str) -> str:
        """The text below a field."""

    @abstractmethod
    def save(self) -> None:
        """Save, and wait until the page says that it is done."""

    @abstractmethod
    def save_and_test(self) -> str:
        """Save, and press the button that tests the connection; give what the page then says."""

    def fill(self, values: dict[str, str]) -> None:
        for label, value in values.items():
            self.field(label).fill(value)


class AirflowPage(ABC):
    """Airflow's page in a browser."""

    def __init__(self, page: Page, base_url: str) -> None:
        self.page = page
        self.base_url = base_url

    @abstractmethod
    def new_connection(self, conn_id: str, type_name: str) -> ConnectionForm:
        """Open the form of a new connection and choose its type by name."""

    @abstractmethod
    def edit_connection(self, conn_id: str) -> ConnectionForm:
        """Open the form of a connection that there is."""

    @abstractmethod
    def address(self, url: str) -> dict[str, str]:
        """What to fill in so that a connection leads there, and can be tested."""


# ---------------------------------------------------------------------------------------------------- Airflow 3


class Airflow3Form(ConnectionForm):
    def __init__(self, page: Page, airflow_page: Airflow3Page) -> None:
        super().__init__(page)
        self.shown = page.get_by_role("dialog")
        self._airflow_page = airflow_page

    def _sections(self) -> Locator:
        # The last section is the same extras as JSON, without a label.
        return self.shown.locator("[data-scope=accordion][data-part=item]").filter(has=self.page.locator("label"))

    @staticmethod
    def _open(section: Locator) -> None:
        heading = section.locator("[data-part=item-trigger]")
        if heading.get_attribute("aria-expanded") == "false":
            heading.click()
            expect(heading).to_have_attribute("aria-expanded", "true")

    def labels(self) -> list[str]:
        found = []
        for section in self._sections().all():
            self._open(section)
            found += [text.strip() for text in section.locator("label").all_inner_texts()]
        return found

    def field(self, label: str) -> Locator:
        self._open(self._sections().filter(has=self.page.get_by_label(label, exact=True)))
        field = self.shown.get_by_label(label, exact=True)
        expect(field).to_be_visible()
        return field

    def help(self, label: str) -> str:
        described_by = self.field(label).get_attribute("aria-describedby")
        return self.shown.locator(f"id={described_by}").inner_text()

    def save(self) -> None:
        self.shown.get_by_role("button", name="Save").click()
        expect(self.shown).to_be_hidden()

    def save_and_test(self) -> str:
        conn_id = self.shown.get_by_label("Connection ID").input_value()
        self.save()
        # The button is in the list.
        self._airflow_page.listed(conn_id).get_by_role("button", name="Test Connection").click()
        return self.page.locator("[data-scope=toast][data-part=root]").inner_text()


class Airflow3Page(AirflowPage):
    def new_connection(self, conn_id: str, type_name: str) -> ConnectionForm:
        self.page.goto(f"{self.base_url}/connections")
        self.page.get_by_role("button", name="Add Connection").click()
        form = Airflow3Form(self.page, self)
        form.shown.get_by_label("Connection ID").fill(conn_id)
        form.shown.get_by_label("Connection Type").fill(type_name)
        self.page.get_by_role("option", name=type_name, exact=True).click()
        return form

    def listed(self, conn_id: str) -> Locator:
        """The line of a connection in the list of all."""
        self.page.goto(f"{self.base_url}/connections")
        return self.page.get_by_role("row").filter(has=self.page.get_by_text(conn_id, exact=True))

    def edit_connection(self, conn_id: str) -> ConnectionForm:
        self.listed(conn_id).get_by_role("button", name="Edit Connection").click()
        return Airflow3Form(self.page, self)

    def address(self, url: str) -> dict[str, str]:
        # Airflow 3.3.1 and 3.3.2 refuse to test a connection that has no port.
        return {"Base URL": url, "Port": str(urlsplit(url).port)}

    def trigger_form(self, dag_id: str) -> TriggerForm:
        """Open the form that starts a run."""
        self.page.goto(f"{self.base_url}/dags/{dag_id}")
        self.page.get_by_role("button", name="Trigger").click()
        return TriggerForm(self.page)

    def show_run(self, dag_id: str, run_id: str, tasks: list[str]) -> None:
        """Show the tasks of a run that has ended well, as a graph."""
        self.page.goto(f"{self.base_url}/dags/{dag_id}/runs/{quote(run_id, safe='')}")
        self.page.get_by_role("button", name="Show Graph").click()
        graph = self.page.get_by_role("application")
        for task in tasks:
            expect(graph.get_by_role("link", name=task)).to_be_visible()
            # The list beside the graph has a line a task.
            expect(self.page.get_by_role("row").filter(has_text=task).filter(has_text="Success")).to_be_visible()
        # Away from what would explain itself over the picture.
        self.page.mouse.move(0, 0)

    def show_mapped(self, dag_id: str, run_id: str, task_id: str, names: list[str]) -> None:
        """Show the instances of a mapped task, by their names."""
        self.page.goto(f"{self.base_url}/dags/{dag_id}/runs/{quote(run_id, safe='')}/tasks/{task_id}/mapped")
        for name in names:
            expect(self.page.get_by_text(name, exact=True).first).to_be_visible()


class TriggerForm:
    """The form of a DAG's params, open."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.shown = page.get_by_role("dialog")

    def _row(self, label: str) -> Locator:
        # By its label's text: some labels are tied to no field, and a list to choose several from has another label.
        return self.shown.get_by_role("group").filter(has=self.page.locator("label", has_text=labelled(label)))

    def field(self, label: str) -> Locator:
        """The field with this label."""
        return self._row(label).locator("input")

    def choose(self, label: str, option: str) -> None:
        """Choose an option in a field; where several may be chosen, one more."""
        self._row(label).get_by_role("combobox").click()
        self.page.get_by_role("option", name=option, exact=True).click()

    def send(self) -> None:
        """Start the run, and wait until the page has done so."""
        self.shown.get_by_role("button", name="Trigger", exact=True).click()
        expect(self.shown).to_be_hidden()


# ---------------------------------------------------------------------------------------------------- Airflow 2


class Airflow2Form(ConnectionForm):
    def __init__(self, page: Page) -> None:
        super().__init__(page)
        self.shown = page.locator("#model_form")

    def _rows(self) -> Locator:
        return self.shown.locator("tr").filter(visible=True)

    def labels(self) -> list[str]:
        found = [text.rstrip("* \n").strip() for text in self._rows().locator("label").all_inner_texts()]
        return [label for label in found if label not in ("Connection Id", "Connection Type")]

    def row(self, label: str) -> Locator:
        """The line of the form with this label."""
        return self._rows().filter(has=self.page.locator("label", has_text=labelled(label)))

    def field(self, label: str) -> Locator:
        return self.row(label).locator(".form-control")

    def help(self, label: str) -> str:
        return self.row(label).locator(".help-block").inner_text()

    def save(self) -> None:
        self.shown.get_by_role("button", name="Save").click()
        saved = self.page.locator(".alert").filter(has_text=re.compile("(Added|Changed) Row"))
        expect(saved).to_be_visible()

    def save_and_test(self) -> str:
        # The button is on the form, and sends what is filled in there.
        self.shown.get_by_role("button", name="Test").click()
        # What is there before warns of something else.
        said = self.page.locator(".alert-success, .alert-error").inner_text()
        self.save()
        return said


class Airflow2Page(AirflowPage):
    def _go(self, path: str) -> None:
        self.page.goto(f"{self.base_url}{path}")
        if "/login" in self.page.url:
            name, password = LOGIN
            self.page.get_by_label("Username").fill(name)
            self.page.get_by_label("Password").fill(password)
            self.page.get_by_role("button", name="Sign In").click()
            self.page.wait_for_url(lambda url: "/login" not in url)

    def new_connection(self, conn_id: str, type_name: str) -> ConnectionForm:
        self._go("/connection/add")
        form = Airflow2Form(self.page)
        form.field("Connection Id").fill(conn_id)
        # The field itself is hidden, and drawn by Select2.
        form.row("Connection Type").get_by_role("combobox").click()
        self.page.locator(".select2-results__option").get_by_text(type_name, exact=True).click()
        return form

    def edit_connection(self, conn_id: str) -> ConnectionForm:
        self._go("/connection/list/")
        row = self.page.get_by_role("row").filter(has=self.page.get_by_text(conn_id, exact=True))
        # An icon, whose tooltip is its only name.
        row.locator("a[href*='/connection/edit/']").click()
        return Airflow2Form(self.page)

    def address(self, url: str) -> dict[str, str]:
        return {"Base URL": url}
