"""`prh doctor` names what is broken, in one line each, and says so in its exit code."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path

from prh.models import doctor
from prh.models.doctor import ELSEWHERE
from prh.tests.harness.test_cli import prh
from prh.tests.harness.test_plugins import install


def test_a_sound_machine_is_all_ok_or_absent() -> None:
    lines = prh("doctor").stdout.splitlines()
    assert {line.split()[0] for line in lines} <= {"ok", "absent"}
    assert any(line.startswith("ok      torch ") for line in lines)


def test_what_engines_need_is_named(monkeypatch) -> None:
    numbers = {"openai": "3.1"}

    def number(package: str) -> str:
        if package in ELSEWHERE and package not in numbers:
            raise PackageNotFoundError
        return numbers.get(package, "1")

    monkeypatch.setattr(doctor, "version", number)
    found = {finding.what: finding for finding in doctor.findings()}
    assert found["openai"] == ("ok", "openai", "3.1")
    assert found["vllm"] == ("absent", "vllm", ELSEWHERE["vllm"])
    assert "prh[ray]" in found["ray"].detail


def test_a_broken_torchvision_and_a_broken_plugin_are_named(tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms is missing')\n"
    )
    info = tmp_path / "torchvision-0.28.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.28.0\n")
    install(tmp_path, "prh-broken", {"prh.tasks": {"gone": "nowhere_at_all:Task"}})
    said = prh("doctor", code=2, PYTHONPATH=str(tmp_path)).stdout
    broken = [line for line in said.splitlines() if line.startswith("broken")]
    assert len(broken) == 2
    assert "torchvision::nms" in broken[0]
    assert "prh-broken" in broken[1]
    done = prh(
        "eval",
        "--model",
        "tiny",
        "--task",
        "vstar-mini",
        "--limit",
        "1",
        "--out",
        str(tmp_path / "run"),
        PYTHONPATH=str(tmp_path),
    )
    assert "1/1 episodes" in done.stdout
