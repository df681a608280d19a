"""What a run notes of the machine it ran on, and what a page says of it."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from prh.harness.manifest import environment
from prh.harness.store import read_manifest, write_json
from prh.harness.types import Json
from prh.reports.report import Options, report
from prh.tests.reports.looking import Look, samples


def torch(*, available: bool, name: str | Exception = "") -> SimpleNamespace:
    """A stand-in for PyTorch on a machine with or without a GPU."""

    def named() -> str:
        if isinstance(name, Exception):
            raise name
        return name

    return SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: available, get_device_name=named))


@pytest.mark.parametrize(
    ("module", "gpu"),
    [
        (torch(available=True, name="NVIDIA H200"), "NVIDIA H200"),
        (torch(available=False), None),
        (torch(available=True, name=RuntimeError("the driver is too old")), None),
        (SimpleNamespace(), None),
        (None, None),
    ],
)
def test_the_gpu_is_noted_where_pytorch_computes_on_one(
    module: SimpleNamespace | None, gpu: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", module)
    assert environment()["gpu"] == gpu


def test_pytorch_is_not_imported_to_ask() -> None:
    code = "import sys; from prh.harness.manifest import environment; environment(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("writers", [False, True])
def test_a_page_says_which_gpu_it_was_and_how_often_a_server_was_asked_again(writers: bool, tmp_path: Path) -> None:
    run = Look(samples(tmp_path / "data", 1, 0), {}).at(tmp_path / "run")
    manifest = read_manifest(run)
    manifest["environment"]["gpu"] = "NVIDIA H200"  # type: ignore[index, call-overload]
    told: Json = {"name": "openai", "retries": {"429": 2, "timeout": 1}}
    both: Json = {"name": "openai", "retries": {"429": 4, "timeout": 2}}
    manifest |= {"engine": both, "writers": [told, told]} if writers else {"engine": told}
    write_json(run / "run.json", manifest)
    page = report([str(run)], Options(images="none"))
    assert "NVIDIA H200, " in page
    assert f'<dt>retries</dt><dd class="">{"429 4, timeout 2" if writers else "429 2, timeout 1"}</dd>' in page


def test_a_run_without_retries_says_nothing_of_them(tmp_path: Path) -> None:
    run = Look(samples(tmp_path / "data", 1, 0), {}).at(tmp_path / "run")
    assert "<dt>retries</dt>" not in report([str(run)], Options(images="none"))
