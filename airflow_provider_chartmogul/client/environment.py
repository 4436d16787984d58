# SPDX-License-Identifier: Apache-2.0
"""Proxy and CA bundle for the API host. Loads requests, so import it in functions only."""

from __future__ import annotations

import os
import ssl
from typing import NamedTuple
from urllib.parse import urlsplit

import requests
from requests.utils import DEFAULT_CA_BUNDLE_PATH, prepend_scheme_if_needed, select_proxy
from urllib3.util.ssl_ import create_urllib3_context

from airflow_provider_chartmogul.exceptions import ConnectionSettingsError


class ProxySettings(NamedTuple):
    """
    How aiohttp reaches a host.

    :param proxy: URL of the proxy; ``None`` connects directly
    :param ca_bundle: path of the certificates that ``tls`` trusts
    :param tls: for aiohttp's parameter ``ssl``
    """

    proxy: str | None = None
    ca_bundle: str | None = None
    tls: ssl.SSLContext | bool = True


def resolve_proxy_and_ca(base_url: str, previous: ProxySettings) -> ProxySettings:
    """
    Return the proxy and CA bundle for the API host, taken from the environment as requests does.

    aiohttp's own ``trust_env`` reads ``.netrc`` for every request, and ignores ``ALL_PROXY`` and
    ``REQUESTS_CA_BUNDLE``.

    :param previous: its TLS context is reused if the CA bundle is the same, so that connections are reused too
    :raises ConnectionSettingsError: for a proxy or CA bundle that cannot be used
    """
    with requests.Session() as session:
        environment = session.merge_environment_settings(base_url, {}, None, None, None)
    proxy = select_proxy(base_url, environment["proxies"]) or None
    if proxy is not None:
        proxy = prepend_scheme_if_needed(proxy, "http")  # type: ignore[no-untyped-call]
        scheme = urlsplit(proxy).scheme
        if scheme not in ("http", "https"):
            raise ConnectionSettingsError(
                f"the environment has a {scheme} proxy for {base_url}, which the triggerer cannot use: set an http "
                "proxy or NO_PROXY there, or wait with deferrable=False"
            )
    if not (base_url.startswith("https:") or (proxy or "").startswith("https:")):
        return ProxySettings(proxy)
    verify = environment["verify"]
    ca_bundle = verify if isinstance(verify, str) else DEFAULT_CA_BUNDLE_PATH
    if ca_bundle == previous.ca_bundle:
        return previous._replace(proxy=proxy)
    # Not ssl.create_default_context(): on Python 3.13 that is stricter than urllib3 before 2.4 is.
    tls = create_urllib3_context()
    try:
        tls.load_verify_locations(**{"capath" if os.path.isdir(ca_bundle) else "cafile": ca_bundle})
    except OSError as error:
        raise ConnectionSettingsError(
            f"the CA bundle of the environment cannot be read: {ca_bundle}: {error}"
        ) from error
    return ProxySettings(proxy, ca_bundle, tls)


def describe_tls_error(error: object) -> str:
    """Describe a TLS error, with a hint if the server does not use TLS at all."""
    text = f"TLS failed: {error}"
    # OpenSSL 3.4 renamed the error.
    if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER_FAILURE" in text:
        text += "; the server does not seem to use TLS: is it http instead of https?"
    return text
