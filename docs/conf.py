# SPDX-License-Identifier: Apache-2.0
"""How Sphinx builds the documentation: ``make docs``."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
from typing import Any

# Importing Airflow makes files in its home, and says a lot.
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
# In the docstrings that say `this` it is code.
default_role = "code"

myst_enable_extensions = ["colon_fence", "deflist"]
# Every heading can be linked to; a link that leads nowhere is a warning, and so an error.
myst_heading_anchors = 3

# Airflow's own names, whose documentation is elsewhere, and Python's.
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
    """Add to an operator's docstring which of its parameters are templates."""
    fields = getattr(obj, "template_fields", ())
    if what == "class" and fields:
        lines += ["", f"**Template fields**: {', '.join(f'``{field}``' for field in fields)}", ""]


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", add_template_fields)
