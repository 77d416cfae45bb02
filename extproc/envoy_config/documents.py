"""Envoy's configuration as documents: one static file, or a directory that a running Envoy follows."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path
from typing import Any

import betterproto2
from envoy_data_plane.envoy.config.bootstrap import v3 as bootstrap
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.service.discovery import v3 as discovery
from ruamel.yaml import YAML
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import SafeRepresenter

from extproc.core.settings import Settings
from extproc.envoy_config.clusters import clusters, packed, socket_address
from extproc.envoy_config.deployment import Deployment
from extproc.envoy_config.listener import ingress
from extproc.envoy_config.routes import route_configuration

NODE = "tokenpool"
BOOTSTRAP, LISTENERS, ROUTES, CLUSTERS = "bootstrap.yaml", "lds.yaml", "rds.yaml", "cds.yaml"


def static_config(settings: Settings, deployment: Deployment) -> dict[str, Any]:
    """All of Envoy's configuration in one document. Raises UnknownServerError (see there)."""
    document = _bootstrap(deployment)
    document.static_resources = bootstrap.BootstrapStaticResources(
        listeners=[ingress(settings, deployment, route_file=None)], clusters=clusters(settings, deployment)
    )
    return _plain(document)


def write_xds(settings: Settings, deployment: Deployment, directory: Path) -> Path:
    """Writes the files that make up the configuration; returns the one to start Envoy with.

    Called again, it changes what a running Envoy does; only a change of the admin address needs a restart.
    Clusters are written before the routes that name them. Raises UnknownServerError before anything is written.
    """
    where = directory.resolve()
    document = _bootstrap(deployment)
    document.dynamic_resources = bootstrap.BootstrapDynamicResources(
        cds_config=_source(where, CLUSTERS), lds_config=_source(where, LISTENERS)
    )
    listener = ingress(settings, deployment, route_file=_source(where, ROUTES))
    files = {
        CLUSTERS: _resources(clusters(settings, deployment)),
        ROUTES: _resources([route_configuration(settings)]),
        LISTENERS: _resources([listener]),
        BOOTSTRAP: _plain(document),
    }
    where.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        _write(where / name, dump(content))
    return where / BOOTSTRAP


def dump(config: dict[str, Any]) -> str:
    """The document as YAML, the same text for the same document."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment] # untyped there: starts as None
    yaml.width = 4096  # never fold
    yaml.Representer = _Representer
    text = io.StringIO()
    yaml.dump(config, text)
    return text.getvalue()


class _Representer(SafeRepresenter):
    """Several lines of text, like a script, stay readable."""


def _text(representer: SafeRepresenter, text: str) -> ScalarNode:
    style = "|" if "\n" in text else None
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Representer.add_representer(str, _text)


def _plain(message: betterproto2.Message) -> dict[str, Any]:
    return message.to_dict(casing=betterproto2.Casing.SNAKE)


def _bootstrap(deployment: Deployment) -> bootstrap.Bootstrap:
    return bootstrap.Bootstrap(
        node=core.Node(id=NODE, cluster=NODE),
        admin=bootstrap.Admin(address=socket_address(deployment.admin_host, deployment.admin_port)),
    )


def _source(directory: Path, name: str) -> core.ConfigSource:
    """Envoy sees a file change when one is moved into the watched directory."""
    return core.ConfigSource(
        resource_api_version=core.ApiVersion.V3,
        path_config_source=core.PathConfigSource(
            path=str(directory / name), watched_directory=core.WatchedDirectory(path=str(directory))
        ),
    )


def _resources(messages: list[Any]) -> dict[str, Any]:
    return _plain(discovery.DiscoveryResponse(resources=[packed(each) for each in messages]))


def _write(path: Path, text: str) -> None:
    """Atomically: a reader sees the old text or the new one."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    Path(temporary).chmod(0o644)  # Envoy may run as another user
    Path(temporary).replace(path)
