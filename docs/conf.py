# SPDX-License-Identifier: Apache-2.0
"""Configure Sphinx. ``make docs`` builds the documentation."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
from typing import Any

# Importing Airflow creates files in its home and logs a lot.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-home-docs-")
atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)
logging.disable(logging.INFO)

from airflow_provider_chartmogul import __version__  # noqa: E402

project = "ChartMogul for Apache Airflow"
author = "the authors of airflow-provider-chartmogul"
copyright = f"{author}, Apache-2.0"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
# In docstrings, `text` in single backquotes is code.
default_role = "code"

myst_enable_extensions = ["colon_fence", "deflist"]
# Give each heading an anchor. A broken link is a warning, and so an error.
myst_heading_anchors = 3

# Names of Airflow and Python, which are documented elsewhere.
nitpick_ignore_regex = [
    ("py:exc", r"Airflow\w+|(Runtime|OS|Value)Error"),
    ("py:class", r"(airflow|datetime|enum|requests)\..*"),
]

autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_title = f"{project} {release}"
html_copy_source = False
html_show_sphinx = False


def add_template_fields(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Add the names of the templated parameters to an operator's docstring."""
    fields = getattr(obj, "template_fields", ())
    if what == "class" and fields:
        lines += ["", f"**Template fields**: {', '.join(f'``{field}``' for field in fields)}", ""]


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", add_template_fields)
