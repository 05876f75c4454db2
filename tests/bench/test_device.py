"""One call measures a machine: every step is a command that exists, and one that fails stops no other."""

import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench import device
from bench.specs import NAMES


def test_one_call_measures_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ran: list[list[str]] = []
    flags: list[str] = []

    def run(command: list[str], env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        ran.append(command[2:])
        flags.append(env["XLA_FLAGS"])
        return subprocess.CompletedProcess(command, int("bench.roofline" in command))

    monkeypatch.setattr(device.subprocess, "run", run)
    monkeypatch.setenv("XLA_FLAGS", "--of_the_user=1")
    result = CliRunner().invoke(device.main, [str(tmp_path / "out"), "--smoke"])
    assert result.exit_code == 1, "a step failed"
    assert [command[0] for command in ran][:3] == ["pytest", "bench.roofline", "bench"], "the others ran"
    for command in ran[1:]:
        assert Path(command[command.index("--out") + 1]).parent == tmp_path / "out"
    assert [command[1] for command, flag in zip(ran, flags, strict=True) if "+WHILE" in flag] == ["bound"]
    assert all(flag.split()[0] == "--of_the_user=1" for flag in flags), "what the user asks of XLA stays"
    ran.clear()
    assert CliRunner().invoke(device.main, [str(tmp_path), "--only", "tests"]).exit_code == 0
    assert len(ran) == 1
    refused = CliRunner().invoke(device.main, [str(tmp_path), "--only", "nothing"])
    assert refused.exit_code == 2
    assert "expected one of tests, roofline" in refused.output


def test_steps_of_a_machine_are_commands_that_exist(tmp_path: Path):
    assert set(device.BENCHMARKS) <= set(NAMES)
    for arguments in device.list_steps(tmp_path, smoke=True).values():
        module = arguments[1]
        if module != "pytest":
            command = import_module(f"{module}.__main__" if module == "bench" else module).main
            command.make_context(module, [*arguments[2:]])
