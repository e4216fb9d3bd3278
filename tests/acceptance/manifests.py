"""What stands in ``deploy/kubernetes`` and ``deploy/docker/compose.yaml``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.acceptance.deployed import DEPLOY, read

Document = dict[str, Any]

SECRET = re.compile(r"\$\{CREDENTIALS_DIRECTORY\}/(\w+)")
"""How a configuration in a container names a secret."""


def documents(name: str) -> list[Document]:
    return list(yaml.safe_load_all(read(f"kubernetes/{name}")))


def all_documents() -> Iterator[tuple[str, Document]]:
    for path in sorted(DEPLOY.glob("kubernetes/*.yaml")):
        for document in documents(path.name):
            yield path.name, document


def pod_of(name: str) -> Document:
    """The pod that the last document of the file describes."""
    spec = documents(name)[-1]["spec"]
    if "jobTemplate" in spec:
        spec = spec["jobTemplate"]["spec"]
    pod: Document = spec["template"]["spec"]
    return pod


def container_of(name: str) -> Document:
    container: Document
    (container,) = pod_of(name)["containers"]
    return container


def configuration() -> str:
    (document,) = documents("config.yaml")
    text: str = document["data"]["config.toml"]
    return text


def compose() -> Document:
    document: Document = yaml.safe_load(read("docker/compose.yaml"))
    return document
