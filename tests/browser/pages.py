# SPDX-License-Identifier: Apache-2.0
"""
Page objects for the UIs of Airflow 3 and Airflow 2, which find elements by labels and roles, as users do.

Both have the same interface for connections, so that they share tests. Elements without a label are found by the
attributes that the UI's components set.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from urllib.parse import quote, urlsplit

from playwright.sync_api import Locator, Page, expect

from dev.real_airflow.generations import LOGIN


def labelled(text: str) -> re.Pattern[str]:
    """Return a pattern for a label's text. Labels of required fields end with an asterisk."""
    return re.compile(rf"^\s*{re.escape(text)}\s*\*?\s*$")


class ConnectionForm(ABC):
    """
    An open form of a connection.

    ``root`` is the element that contains it.
    """

    root: Locator

    def __init__(self, page: Page) -> None:
        self.page = page

    @abstractmethod
    def labels(self) -> list[str]:
        """Return the labels of the connection type's fields, in order."""

    @abstractmethod
    def field(self, label: str) -> Locator:
        """Return the field with this label, after making it visible."""

    @abstractmethod
    def help(self, label: str) -> str:
        """Return the text below a field."""

    @abstractmethod
    def save(self) -> None:
        """Save the connection and wait for the UI's confirmation."""

    @abstractmethod
    def save_and_test(self) -> str:
        """Save and test the connection, and return the UI's message."""

    def fill(self, values: dict[str, str]) -> None:
        for label, value in values.items():
            self.field(label).fill(value)


class AirflowPage(ABC):
    """Airflow's UI in a browser page."""

    def __init__(self, page: Page, base_url: str) -> None:
        self.page = page
        self.base_url = base_url

    @abstractmethod
    def new_connection(self, conn_id: str, type_name: str) -> ConnectionForm:
        """Open the form of a new connection and choose its type."""

    @abstractmethod
    def edit_connection(self, conn_id: str) -> ConnectionForm:
        """Open the form of an existing connection."""

    @abstractmethod
    def address(self, url: str) -> dict[str, str]:
        """Return the field values for a connection to this URL that the UI can test."""


# ---------------------------------------------------------------------------------------------------- Airflow 3


class Airflow3Form(ConnectionForm):
    def __init__(self, page: Page, airflow_page: Airflow3Page) -> None:
        super().__init__(page)
        self.root = page.get_by_role("dialog")
        self._airflow_page = airflow_page

    def _sections(self) -> Locator:
        # The last section, without labels, has the same extras as JSON.
        return self.root.locator("[data-scope=accordion][data-part=item]").filter(has=self.page.locator("label"))

    @staticmethod
    def _open(section: Locator) -> None:
        heading = section.locator("[data-part=item-trigger]")
        if heading.get_attribute("aria-expanded") == "false":
            heading.click()
            expect(heading).to_have_attribute("aria-expanded", "true")

    def labels(self) -> list[str]:
        labels = []
        for section in self._sections().all():
            self._open(section)
            labels += [text.strip() for text in section.locator("label").all_inner_texts()]
        return labels

    def field(self, label: str) -> Locator:
        self._open(self._sections().filter(has=self.page.get_by_label(label, exact=True)))
        field = self.root.get_by_label(label, exact=True)
        expect(field).to_be_visible()
        return field

    def help(self, label: str) -> str:
        described_by = self.field(label).get_attribute("aria-describedby")
        return self.root.locator(f"id={described_by}").inner_text()

    def save(self) -> None:
        self.root.get_by_role("button", name="Save").click()
        expect(self.root).to_be_hidden()

    def save_and_test(self) -> str:
        conn_id = self.root.get_by_label("Connection ID").input_value()
        self.save()
        # The button is in the list of connections.
        self._airflow_page.list_row(conn_id).get_by_role("button", name="Test Connection").click()
        return self.page.locator("[data-scope=toast][data-part=root]").inner_text()


class Airflow3Page(AirflowPage):
    def new_connection(self, conn_id: str, type_name: str) -> ConnectionForm:
        self.page.goto(f"{self.base_url}/connections")
        self.page.get_by_role("button", name="Add Connection").click()
        form = Airflow3Form(self.page, self)
        form.root.get_by_label("Connection ID").fill(conn_id)
        form.root.get_by_label("Connection Type").fill(type_name)
        self.page.get_by_role("option", name=type_name, exact=True).click()
        return form

    def list_row(self, conn_id: str) -> Locator:
        """Open the list of connections and return a connection's row."""
        self.page.goto(f"{self.base_url}/connections")
        return self.page.get_by_role("row").filter(has=self.page.get_by_text(conn_id, exact=True))

    def edit_connection(self, conn_id: str) -> ConnectionForm:
        self.list_row(conn_id).get_by_role("button", name="Edit Connection").click()
        return Airflow3Form(self.page, self)

    def address(self, url: str) -> dict[str, str]:
        # Airflow 3.3.1 and 3.3.2 do not test connections without a port.
        return {"Base URL": url, "Port": str(urlsplit(url).port)}

    def trigger_form(self, dag_id: str) -> TriggerForm:
        """Open the form that triggers a run."""
        self.page.goto(f"{self.base_url}/dags/{dag_id}")
        self.page.get_by_role("button", name="Trigger").click()
        return TriggerForm(self.page)

    def show_run(self, dag_id: str, run_id: str, tasks: list[str]) -> None:
        """Show the graph of a successful run."""
        self.page.goto(f"{self.base_url}/dags/{dag_id}/runs/{quote(run_id, safe='')}")
        self.page.get_by_role("button", name="Show Graph").click()
        graph = self.page.get_by_role("application")
        for task in tasks:
            expect(graph.get_by_role("link", name=task)).to_be_visible()
            # The list beside the graph has a row for each task.
            expect(self.page.get_by_role("row").filter(has_text=task).filter(has_text="Success")).to_be_visible()
        # No tooltip may cover the graph in the screenshot.
        self.page.mouse.move(0, 0)

    def show_mapped(self, dag_id: str, run_id: str, task_id: str, names: list[str]) -> None:
        """Show the instances of a mapped task, and wait for their names."""
        self.page.goto(f"{self.base_url}/dags/{dag_id}/runs/{quote(run_id, safe='')}/tasks/{task_id}/mapped")
        for name in names:
            expect(self.page.get_by_text(name, exact=True).first).to_be_visible()


class TriggerForm:
    """An open form with a DAG's params."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.root = page.get_by_role("dialog")

    def _row(self, label: str) -> Locator:
        # Fields cannot be found by their label, since some labels do not refer to a field.
        return self.root.get_by_role("group").filter(has=self.page.locator("label", has_text=labelled(label)))

    def field(self, label: str) -> Locator:
        """Return the field with this label."""
        return self._row(label).locator("input")

    def choose(self, label: str, option: str) -> None:
        """Choose an option in a field, in addition to those chosen before if it allows several."""
        self._row(label).get_by_role("combobox").click()
        self.page.get_by_role("option", name=option, exact=True).click()

    def submit(self) -> None:
        """Trigger the run and wait until the form has closed."""
        self.root.get_by_role("button", name="Trigger", exact=True).click()
        expect(self.root).to_be_hidden()


# ---------------------------------------------------------------------------------------------------- Airflow 2


class Airflow2Form(ConnectionForm):
    def __init__(self, page: Page) -> None:
        super().__init__(page)
        self.root = page.locator("#model_form")

    def _rows(self) -> Locator:
        return self.root.locator("tr").filter(visible=True)

    def labels(self) -> list[str]:
        labels = [text.rstrip("* \n").strip() for text in self._rows().locator("label").all_inner_texts()]
        return [label for label in labels if label not in ("Connection Id", "Connection Type")]

    def row(self, label: str) -> Locator:
        """Return the row of the form with this label."""
        return self._rows().filter(has=self.page.locator("label", has_text=labelled(label)))

    def field(self, label: str) -> Locator:
        return self.row(label).locator(".form-control")

    def help(self, label: str) -> str:
        return self.row(label).locator(".help-block").inner_text()

    def save(self) -> None:
        self.root.get_by_role("button", name="Save").click()
        saved = self.page.locator(".alert").filter(has_text=re.compile("(Added|Changed) Row"))
        expect(saved).to_be_visible()

    def save_and_test(self) -> str:
        # The button is in the form and tests the values that are filled in.
        self.root.get_by_role("button", name="Test").click()
        # Alerts of other classes were there before.
        message = self.page.locator(".alert-success, .alert-error").inner_text()
        self.save()
        return message


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
        # Select2 hides the field itself.
        form.row("Connection Type").get_by_role("combobox").click()
        self.page.locator(".select2-results__option").get_by_text(type_name, exact=True).click()
        return form

    def edit_connection(self, conn_id: str) -> ConnectionForm:
        self._go("/connection/list/")
        row = self.page.get_by_role("row").filter(has=self.page.get_by_text(conn_id, exact=True))
        # The link is an icon without a name.
        row.locator("a[href*='/connection/edit/']").click()
        return Airflow2Form(self.page)

    def address(self, url: str) -> dict[str, str]:
        return {"Base URL": url}
