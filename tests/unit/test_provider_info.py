# SPDX-License-Identifier: Apache-2.0
"""
The provider's metadata: valid by Airflow's schemas, consistent with the package, and loaded by Airflow.

Airflow's providers manager runs in another process, with the entry point that ``pyproject.toml`` declares.
"""

from __future__ import annotations

import inspect
import json
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest
from airflow.providers.common.compat.sdk import BaseHook, BaseOperator, BaseSensorOperator
from airflow.triggers.base import BaseTrigger

import airflow_provider_chartmogul
from airflow_provider_chartmogul import __version__
from airflow_provider_chartmogul.client.settings import ConnectionSettings
from airflow_provider_chartmogul.get_provider_info import get_provider_info
from airflow_provider_chartmogul.hooks.chartmogul import ChartMogulHook
from tests.unit.values import ROOT, run_python

INFO = get_provider_info()
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
[CONNECTION_TYPE] = INFO["connection-types"]

#: The modules that the metadata lists, with their class and its base. Keys are those of the metadata, up to the comma.
MODULES = {
    "hooks": ("airflow_provider_chartmogul.hooks.chartmogul", "ChartMogulHook", BaseHook),
    "operators": (
        "airflow_provider_chartmogul.operators.activities_export",
        "CreateActivitiesExportOperator",
        BaseOperator,
    ),
    "sensors": (
        "airflow_provider_chartmogul.sensors.activities_export",
        "ActivitiesExportSensor",
        BaseSensorOperator,
    ),
    "triggers": ("airflow_provider_chartmogul.triggers.activities_export", "ActivitiesExportTrigger", BaseTrigger),
    "transfers": (
        "airflow_provider_chartmogul.transfers.activities_export_to_object_storage",
        "ActivitiesExportToObjectStorageOperator",
        BaseOperator,
    ),
    "transfers, in one task": (
        "airflow_provider_chartmogul.transfers.activities_to_object_storage",
        "ActivitiesToObjectStorageOperator",
        BaseOperator,
    ),
    "transfers, of resources": (
        "airflow_provider_chartmogul.transfers.chartmogul_to_object_storage",
        "ChartMogulToObjectStorageOperator",
        BaseOperator,
    ),
    "transfers, into warehouses": (
        "airflow_provider_chartmogul.transfers.object_storage_to_warehouse",
        "ObjectStorageToWarehouseOperator",
        BaseOperator,
    ),
}


def schema_errors(name: str, instance: object) -> list[str]:
    schema = json.loads((Path(airflow.__path__[0]) / name).read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    return [f"{list(error.absolute_path)}: {error.message}" for error in validator.iter_errors(instance)]


def test_provider_info_is_valid() -> None:
    assert schema_errors("provider_info.schema.json", INFO) == []


def test_provider_info_is_valid_as_provider_yaml() -> None:
    of_releases = {"state": "ready", "source-date-epoch": 0}
    # A description of Airflow 2's, from before dependencies moved to pyproject.toml.
    dependencies = {"dependencies": ["apache-airflow>=2.11"]}
    # Airflow before 3.2 does not know the connection form's keys, and its manager does not look at them.
    plain = {key: CONNECTION_TYPE[key] for key in ("connection-type", "hook-class-name")}
    schema = (Path(airflow.__path__[0]) / "provider.yaml.schema.json").read_text()
    # Airflow 2 does not know assets, which were datasets then.
    known = {key: value for key, value in INFO.items() if key != "asset-uris" or '"asset-uris"' in schema}
    described = {
        **known,
        **of_releases,
        **(dependencies if '"dependencies"' in schema else {}),
        **({} if '"conn-fields"' in schema else {"connection-types": [plain]}),
    }
    assert schema_errors("provider.yaml.schema.json", described) == []


def test_provider_info_is_constant_and_serializable() -> None:
    assert json.loads(json.dumps(INFO)) == get_provider_info()
    assert get_provider_info() is not INFO


def test_name_and_version_match_the_package() -> None:
    assert INFO["package-name"] == PROJECT["name"] == "airflow-provider-chartmogul"
    assert INFO["versions"][0] == __version__
    assert "version" in PROJECT["dynamic"]
    assert airflow_provider_chartmogul.__name__ == "airflow_provider_chartmogul"


def test_every_module_kind_is_listed() -> None:
    kinds = {kind.partition(",")[0] for kind in MODULES}
    named = {module for kind in kinds for entry in INFO[kind] for module in _modules(entry)}
    assert named == {module for module, _, _ in MODULES.values()}


def _modules(entry: dict[str, Any]) -> list[str]:
    return entry["python-modules"] if "python-modules" in entry else [entry["python-module"]]


@pytest.mark.parametrize("kind", MODULES)
def test_module_defines_its_class(kind: str) -> None:
    name, class_name, base = MODULES[kind]
    module = import_module(name)
    cls = getattr(module, class_name)
    assert issubclass(cls, base)
    assert cls.__module__ == name
    own = [
        found
        for found in vars(module).values()
        if inspect.isclass(found) and found.__module__ == name and issubclass(found, base)
    ]
    assert own == [cls]


@pytest.mark.parametrize("kind", sorted({kind.partition(",")[0] for kind in MODULES}))
def test_every_module_of_a_folder_is_listed(kind: str) -> None:
    package = Path(airflow_provider_chartmogul.__path__[0])
    found = {path.stem for path in (package / kind).glob("*.py")} - {
        "__init__",
        "base",
        "deferral",
        "events",
        "literals",
        "shared_client",
    }
    assert found == {
        module.rpartition(".")[2] for name, (module, _, _) in MODULES.items() if name.partition(",")[0] == kind
    }


def test_referenced_integrations_exist() -> None:
    known = {integration["integration-name"] for integration in INFO["integrations"]}
    for kind in ("hooks", "operators", "sensors", "triggers"):
        assert {entry["integration-name"] for entry in INFO[kind]} <= known
    assert {entry["source-integration-name"] for entry in INFO["transfers"]} <= known


def test_hook_matches_the_metadata() -> None:
    module, _, name = CONNECTION_TYPE["hook-class-name"].rpartition(".")
    assert getattr(import_module(module), name) is ChartMogulHook
    assert ChartMogulHook.conn_type == CONNECTION_TYPE["connection-type"]
    assert ChartMogulHook.hook_name == CONNECTION_TYPE["hook-name"]
    assert ChartMogulHook.conn_name_attr == "chartmogul_conn_id"
    assert ChartMogulHook.default_conn_name == "chartmogul_default"
    behaviour = {key.replace("-", "_"): value for key, value in CONNECTION_TYPE["ui-field-behaviour"].items()}
    # Airflow 3.2 and later reads the metadata, and shows the port; earlier versions ask the hook, and hide it.
    behaviour["hidden_fields"] = [*behaviour["hidden_fields"], "port"]
    behaviour["placeholders"] = {field: text for field, text in behaviour["placeholders"].items() if field != "port"}
    assert ChartMogulHook.get_ui_field_behaviour() == behaviour


def test_form_behaviour_of_the_hook_is_valid() -> None:
    schema = "customized_form_field_behaviours.schema.json"
    assert schema_errors(schema, ChartMogulHook.get_ui_field_behaviour()) == []


def test_used_fields_are_visible() -> None:
    hidden = set(CONNECTION_TYPE["ui-field-behaviour"]["hidden-fields"])
    assert not hidden & {"host", "password", "description"}


@pytest.mark.parametrize("name", ["timeout", "requests_per_second", "max_connections"])
def test_form_defaults_match_the_settings(name: str) -> None:
    field = CONNECTION_TYPE["conn-fields"][name]
    assert field["schema"]["default"] == getattr(ConnectionSettings, name)
    jsonschema.validators.validator_for(field["schema"]).check_schema(field["schema"])
    for value, fine in [(field["schema"]["default"], True), (None, True), (0, False), (-1, False), ("x", False)]:
        assert jsonschema.Draft202012Validator(field["schema"]).is_valid(value) is fine


def test_form_has_every_setting_and_no_other() -> None:
    assert set(CONNECTION_TYPE["conn-fields"]) == set(ConnectionSettings.__dataclass_fields__) - {"base_url", "api_key"}


def test_entry_point_is_declared() -> None:
    assert PROJECT["entry-points"]["apache_airflow_provider"] == {
        "provider_info": "airflow_provider_chartmogul.get_provider_info:get_provider_info"
    }


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a folder with the metadata that an installer writes from ``pyproject.toml``."""
    site = tmp_path_factory.mktemp("site")
    folder = site / f"airflow_provider_chartmogul-{__version__}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PROJECT['name']}\nVersion: {__version__}\n")
    lines = [
        line
        for group, points in PROJECT["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in points.items()))
    ]
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return str(site)


def test_airflow_loads_the_provider_and_its_hook(installed: str) -> None:
    found = run_python(
        "import json\n"
        "from airflow.providers_manager import ProvidersManager\n"
        "manager = ProvidersManager()\n"
        "hook = manager.hooks['chartmogul']\n"
        "provider = manager.providers['airflow-provider-chartmogul']\n"
        "print('found', json.dumps([provider.version, hook.hook_class_name, hook.hook_name, hook.connection_testable,\n"
        "    hook.connection_id_attribute_name]))\n",
        PYTHONPATH=installed,
    )
    [line] = [line for line in found.splitlines() if line.startswith("found ")]
    assert json.loads(line.removeprefix("found ")) == [
        __version__,
        "airflow_provider_chartmogul.hooks.chartmogul.ChartMogulHook",
        "ChartMogul",
        True,
        "chartmogul_conn_id",
    ]


FORM = """
import json
try:
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
except ImportError:  # Airflow 2, whose webserver draws the form by its manager
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    widgets = manager.connection_form_widgets.values()
    fields = [w.field_name for w in widgets if w.package_name == "airflow-provider-chartmogul"]
    others = any(w.package_name != "airflow-provider-chartmogul" for w in widgets)
    behaviour = manager.field_behaviours["chartmogul"]
    label, host = behaviour["relabeling"]["password"], behaviour["placeholders"]["host"]
else:
    metas = HookMetaService.hook_meta_data()
    [meta] = [m for m in metas if m.connection_type == "chartmogul"]
    others = any(m.extra_fields for m in metas if m is not meta)
    fields = list(meta.extra_fields or [])
    standard = meta.standard_fields
    label, host = (standard.password.title, standard.host.placeholder) if standard else (None, None)
print("found", json.dumps([{"label": label, "host": host, "fields": sorted(fields)}, others]))
"""


def test_connection_form_in_airflow(installed: str) -> None:
    lines = run_python(FORM, PYTHONPATH=installed).splitlines()
    [line] = [line for line in lines if line.startswith("found ")]
    form, others_have_forms = json.loads(line.removeprefix("found "))
    # Without the FAB provider and its packages, Airflow 3.0 shows no provider's form, including its own.
    if others_have_forms or find_spec("wtforms") is not None:
        expected = {
            "label": "API key",
            "host": "https://api.chartmogul.com",
            "fields": ["max_connections", "requests_per_second", "timeout"],
        }
    else:
        expected = {"label": None, "host": None, "fields": []}
    assert form == expected
