"""The compose sample fits together: its files exist, its services agree, its pipeline is the documented one."""

from __future__ import annotations

import re
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture(scope="module")
def pipeline() -> dict[str, Any]:
    return tomllib.loads((DOCKER / "shop.toml").read_text())


def test_every_mounted_file_exists(compose: dict[str, Any]) -> None:
    mounts = [mount.split(":")[0] for service in compose["services"].values() for mount in service["volumes"]]

    for mount in mounts:
        assert (DOCKER / mount).exists() if mount.startswith(".") else mount in compose["volumes"]


def test_the_source_can_be_decoded_and_cdcrep_waits_for_it(compose: dict[str, Any]) -> None:
    services = compose["services"]

    assert "wal_level=logical" in services["source"]["command"]
    assert services["cdcrep"]["depends_on"]["source"]["condition"] == "service_healthy"


def test_the_pipeline_follows_the_service_into_the_volume(compose: dict[str, Any], pipeline: dict[str, Any]) -> None:
    assert "@source:5432/" + compose["services"]["source"]["environment"]["POSTGRES_DB"] in pipeline["source"]["url"]
    assert pipeline["target"]["url"].startswith("duckdb:////var/lib/cdcrep/")
    assert "warehouse:/var/lib/cdcrep" in compose["services"]["cdcrep"]["volumes"]


def test_every_variable_of_the_pipeline_reaches_its_container(
    compose: dict[str, Any], pipeline: dict[str, Any]
) -> None:
    assert "${SOURCE_PASSWORD}" in pipeline["source"]["url"]
    assert "SOURCE_PASSWORD" in compose["services"]["cdcrep"]["environment"]


def test_ports_are_published_on_loopback_only(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]

    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_image_runs_cdcrep_without_root() -> None:
    lines = (DOCKER / "Dockerfile").read_text().splitlines()

    assert "USER 10001:10001" in lines
    assert 'ENTRYPOINT ["cdcrep"]' in lines


def test_shell_scripts_of_the_sample_parse() -> None:
    for script in DOCKER.glob("source/*.sh"):
        subprocess.run(["sh", "-n", script], check=True)


def test_everything_the_image_copies_exists_and_is_sent_to_the_builder() -> None:
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    copied = [source for sources in copies for source in sources.split()]

    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert not ignored_by_docker(source), source


def ignored_by_docker(source: str) -> bool:
    """Return whether `.dockerignore` keeps back a path at the top of the project: the last fitting pattern decides."""
    ignored = False
    for pattern in (ROOT / ".dockerignore").read_text().split():
        if fnmatch(source, pattern.removeprefix("!")):
            ignored = not pattern.startswith("!")
    return ignored


def test_the_image_installs_extras_that_the_project_has() -> None:
    [extras] = re.findall(r"pip install .*'\.\[(.+)\]'", (DOCKER / "Dockerfile").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert set(extras.split(",")) <= set(project["optional-dependencies"])
