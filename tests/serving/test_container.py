"""The Dockerfile and the compose file name what there is: files, extras, options, models, routes. No image is built."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from molmopoint.checkpoints.registry import names as zoo_names
from molmopoint.cli.app import app as commands
from molmopoint.serving.routes.status import HEALTH

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = re.compile(r"\$\{(?P<name>[A-Z_]+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\}")


def instructions() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile with their arguments, lines that go on joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ")
    pairs = (line.split(maxsplit=1) for line in whole.splitlines() if line.strip())
    return [(name, " ".join(text.split())) for name, text in pairs]


def last(name: str) -> str:
    return [text for found, text in instructions() if found == name][-1]


@pytest.fixture(scope="module")
def composition() -> dict[str, Any]:
    """The compose file with its variables as they are where nobody sets any but the key."""

    def value(found: re.Match[str]) -> str:
        if found["kind"] == "?":
            return "a-key"
        return found["rest"] or ""

    text = (ROOT / "compose.yaml").read_text()
    return yaml.safe_load(VARIABLE.sub(value, text))


def check_command(words: list[str]) -> None:
    """The words are a command of ours, with options that it has and models that there are."""
    parser = get_command(commands)
    group = parser.commands[words[0]]  # type: ignore[attr-defined]
    with group.make_context(words[0], list(words[1:])) as context:
        assert set(context.params["models"]) <= set(zoo_names())
        assert context.params["host"] == "0.0.0.0", "a container listens to its own address"
        assert context.params["port"] == int(last("EXPOSE"))


def test_the_image_starts_a_server_that_its_health_check_finds():
    assert json.loads(last("ENTRYPOINT")) == ["molmopoint"]
    check_command(json.loads(last("CMD")))
    address = re.search(r"http://127\.0\.0\.1:(\d+)(/\w+)", last("HEALTHCHECK"))
    assert address is not None and (address[1], address[2]) == (last("EXPOSE"), HEALTH)
    code = json.loads(last("HEALTHCHECK").partition("CMD ")[2])
    compile(code[2], "health check", "exec")


def test_the_image_runs_as_nobody_and_keeps_weights_in_a_volume():
    user, volume = last("USER"), last("VOLUME")
    assert f"--uid {user}" in " ".join(text for name, text in instructions() if name == "RUN") and int(user)
    assert f"HF_HOME={volume}" in last("ENV")
    names = [name for name, _ in instructions()]
    assert names.index("USER") < names.index("ENTRYPOINT")


def test_extras_and_variables_exist(composition: dict[str, Any]):
    setup = (ROOT / "setup.py").read_text()
    arguments = dict(text.split("=", 1) for name, text in instructions() if name == "ARG")
    named = [arguments["EXTRAS"]]
    for service in composition["services"].values():
        given = service["build"].get("args", {})
        assert given.keys() <= arguments.keys()
        named.append(given.get("EXTRAS", "serve"))
    for extras in named:
        assert "serve" in extras.split(",")
        assert all(f'"{extra}": ' in setup for extra in extras.split(","))


def test_services(composition: dict[str, Any]):
    services = composition["services"]
    assert {name: service["profiles"] for name, service in services.items()} == {
        "cpu": ["cpu"],
        "cuda": ["cuda"],
    }
    for service in services.values():
        check_command(service["command"])
        volume, folder = service["volumes"][0].split(":")
        assert volume in composition["volumes"] and folder == last("VOLUME")
        assert service["ports"] == ["127.0.0.1:8000:8000"], "on this machine alone"
        assert service["environment"] == {"MOLMOPOINT_API_KEY": "a-key"}
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["tmpfs"] == ["/tmp"]
        assert int(service["stop_grace_period"].removesuffix("s")) > 120
    (device,) = services["cuda"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert "deploy" not in services["cpu"]


def test_keys_of_the_environment_have_blanks_between_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MOLMOPOINT_API_KEY", "first second")
    group = get_command(commands).commands["serve"]  # type: ignore[attr-defined]
    with group.make_context("serve", ["nano"]) as context:
        assert list(context.params["api_key"]) == ["first", "second"]


def test_a_build_gets_all_of_the_package_and_nothing_else():
    """Files that git knows, through the rules of .dockerignore: a later rule wins."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]

    def is_sent(file: str) -> bool:
        sent = True
        for rule in rules:
            pattern = rule.removeprefix("!").removeprefix("**/")
            parts = file.split("/")
            if any(fnmatch(part, pattern) for part in (parts if rule.startswith("**/") else parts[:1])):
                sent = rule.startswith("!")
        return sent

    done = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )  # of an archive nothing is known
    if done.returncode or shutil.which("git") is None:
        pytest.skip("this is no checkout")
    sent = {file for file in done.stdout.splitlines() if is_sent(file)}
    tops = {file.split("/")[0] for file in sent}
    package = {"molmopoint", "heads", "eval", "checkpoints"}
    assert tops == package | {"setup.py", "pyproject.toml", "README.md", "LICENSE"}
    assert {file for file in done.stdout.splitlines() if file.split("/")[0] in package} == sent - tops
    assert not is_sent(".env") and not is_sent("molmopoint/__pycache__/x.pyc") and not is_sent("runs/model")


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_hadolint_finds_nothing():
    done = subprocess.run(["hadolint", "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_compose_specification_is_kept(composition: dict[str, Any]):
    compose_spec = pytest.importorskip("compose_spec")
    # Parts under x- are for the file itself; what they say has been merged into the services.
    stated = {name: value for name, value in composition.items() if not name.startswith("x-")}
    read = compose_spec.PyCompose.from_json(json.dumps(stated))
    read.validate()
    assert sorted(read.service_names()) == ["cpu", "cuda"]
