"""Where checkpoints are found, what is refused, and an identity that follows content and nothing else."""

import json
import shutil
import struct

import huggingface_hub
import pytest
from huggingface_hub import errors
from prh.harness.errors import ModelError, Prerequisite
from prh.models import checkpoint
from prh.models.checkpoint import Checkpoint, accepts, defaults, fingerprint, resolve_model
from prh.tests.models.families import write


@pytest.fixture
def copy(qwen25, tmp_path):
    """A copy of the tiny checkpoint that may be changed."""
    return shutil.copytree(qwen25, tmp_path / "copy")


@pytest.fixture
def adapter(copy, tmp_path):
    """An adapter folder that names the copy as its base, by a path from where it lies."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    write(folder / "adapter_config.json", {"base_model_name_or_path": "../copy", "r": 4})
    (folder / "adapter_model.safetensors").write_bytes(b"lora")
    return folder


def one_line(caught):
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_names_that_mean_a_checkpoint(copy, adapter, tmp_path):
    (tmp_path / "empty").mkdir()
    assert accepts("tiny")
    assert accepts(str(copy))
    assert accepts(str(adapter))
    assert accepts("Qwen/Qwen2.5-VL-7B-Instruct")
    assert accepts("~nouser/x"), "so that opening it says what is wrong"
    for other in ("oracle", str(tmp_path / "empty"), "http://localhost:8000", "replay:runs/x", "a/b/c", "../up", ""):
        assert not accepts(other)


def test_an_embedded_name_and_a_folder_resolve_to_where_they_lie(qwen25, copy):
    assert resolve_model("tiny-init") == Checkpoint(qwen25)
    assert resolve_model("tiny") == resolve_model("tiny-sft")
    assert resolve_model("tiny").folder.parent.name == "shipped"
    assert resolve_model(str(copy)) == Checkpoint(copy)


def test_an_adapter_resolves_with_its_base(copy, adapter):
    found = resolve_model(str(adapter))
    assert found.adapter == adapter
    assert found.folder.resolve() == copy.resolve()
    assert found.holding("tokenizer_config.json") == found.folder
    write(adapter / "tokenizer_config.json", {})
    assert found.holding("tokenizer_config.json") == adapter


def test_pickled_weights_are_refused(copy, adapter):
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no model.safetensors; save its weights"):
        resolve_model(str(copy))
    (copy / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match=r"pytorch_model.bin is a pickle") as caught:
        resolve_model(str(copy))
    one_line(caught)
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"adapter_model.bin is a pickle"):
        resolve_model(str(adapter))


def test_a_pickle_beside_safetensors_is_ignored(copy):
    before = fingerprint(resolve_model(str(copy)))
    (copy / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert fingerprint(resolve_model(str(copy))) == before


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            {"model.safetensors.index.json": {"weight_map": {"a": "model-1.safetensors"}}},
            "lacks the weight file model-1",
        ),
        ({"model.safetensors.index.json": {}}, "lists no weights"),
        ({"model.safetensors.index.json": []}, "must hold a JSON object"),
    ],
)
def test_incomplete_shards_are_refused(copy, broken, message):
    for name, value in broken.items():
        write(copy / name, value)
    with pytest.raises(ModelError, match=message) as caught:
        resolve_model(str(copy))
    one_line(caught)


def test_what_is_no_checkpoint_is_said_in_one_line(copy, adapter, tmp_path):
    (tmp_path / "empty").mkdir()
    for model, message in (
        (str(tmp_path / "empty"), "holds neither config.json nor adapter_config.json"),
        (str(copy / "config.json"), "is a file; give the folder"),
        (str(tmp_path / "absent"), "there is no folder"),
    ):
        with pytest.raises(ModelError, match=message) as caught:
            resolve_model(model)
        one_line(caught)
    write(adapter / "adapter_config.json", {})
    with pytest.raises(ModelError, match="names no base model"):
        resolve_model(str(adapter))
    write(adapter / "adapter_config.json", {"base_model_name_or_path": str(adapter)})
    with pytest.raises(ModelError):
        resolve_model(str(adapter))


def test_an_adapter_on_an_adapter_is_refused(adapter, tmp_path):
    upper = shutil.copytree(adapter, tmp_path / "upper")
    write(upper / "adapter_config.json", {"base_model_name_or_path": str(adapter)})
    with pytest.raises(ModelError, match="stands on another adapter"):
        resolve_model(str(upper))


def test_a_hub_id_is_downloaded_and_its_commit_kept(copy, tmp_path, monkeypatch):
    commit = shutil.copytree(copy, tmp_path / "snapshots" / "0123abc")
    asked = {}

    def download(model, **options):
        asked.update(options, model=model)
        return str(commit)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    found = resolve_model("org/name", "v1", offline=True)
    assert (found.folder, found.revision) == (commit, "0123abc")
    assert (asked["model"], asked["revision"], asked["local_files_only"]) == ("org/name", "v1", True)
    assert not any("bin" in pattern or pattern == "*" for pattern in asked["allow_patterns"])
    assert fingerprint(found) == fingerprint(Checkpoint(copy))


def test_errors_name_a_snapshot_by_its_hub_id(copy, tmp_path, monkeypatch):
    snapshot = shutil.copytree(copy, tmp_path / "models--org--name" / "snapshots" / "0123abc")
    (snapshot / "model.safetensors").unlink()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(snapshot))
    with pytest.raises(ModelError, match=r"^org/name has no model.safetensors"):
        resolve_model("org/name")


def _hub(kind):
    error = kind.__new__(kind)
    Exception.__init__(error, "many\nlines")
    return error


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (_hub(errors.GatedRepoError), Prerequisite, "org/name at revision v1 is gated: accept its terms"),
        (_hub(errors.RepositoryNotFoundError), ModelError, "the hub has no model org/name at revision v1"),
        (_hub(errors.RevisionNotFoundError), ModelError, "the hub has no org/name at revision v1: check --revision"),
        (_hub(errors.LocalEntryNotFoundError), Prerequisite, "not in the local cache .* run `hf download org/name`"),
        (OSError("name\nresolution"), Prerequisite, "cannot be downloaded: OSError: name resolution"),
    ],
)
def test_what_the_hub_refuses_is_said_in_one_line(monkeypatch, error, kind, message):
    def download(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(kind, match=message) as caught:
        resolve_model("org/name", "v1")
    assert type(caught.value) is kind
    one_line(caught)


def test_offline_and_not_cached_is_a_prerequisite():
    with pytest.raises(Prerequisite, match="not in the local cache"):
        resolve_model("no-such-org/no-such-model", offline=True)


def test_the_fingerprint_is_the_contents_not_the_paths(qwen25, copy):
    assert fingerprint(Checkpoint(copy)) == fingerprint(Checkpoint(qwen25))


def test_one_weight_changes_the_fingerprint(copy):
    before = fingerprint(Checkpoint(copy))
    data = bytearray((copy / "model.safetensors").read_bytes())
    start = 8 + struct.unpack("<Q", data[:8])[0]
    data[start] ^= 1
    (copy / "model.safetensors").write_bytes(data)
    assert fingerprint(Checkpoint(copy)) != before


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "preprocessor_config.json",
        "video_preprocessor_config.json",
        "chat_template.jinja",
        "chat_template.json",
        "merges.txt",
        "modeling_own.py",
    ],
)
def test_what_decides_the_output_changes_the_fingerprint(copy, name):
    before = fingerprint(Checkpoint(copy))
    with (copy / name).open("a") as file:
        file.write(" ")
    assert fingerprint(Checkpoint(copy)) != before


@pytest.mark.parametrize(
    "name", ["prh.json", "README.md", "training.json", "optimizer.pt", "optimizer.safetensors", "trainer_state.json"]
)
def test_what_does_not_decide_the_output_leaves_the_fingerprint(copy, name):
    before = fingerprint(Checkpoint(copy))
    with (copy / name).open("a") as file:
        file.write(" ")
    assert fingerprint(Checkpoint(copy)) == before


def test_an_adapters_fingerprint_covers_both_and_no_path(copy, adapter, tmp_path):
    found = resolve_model(str(adapter))
    before = fingerprint(found)
    assert before != fingerprint(Checkpoint(copy))
    config = json.loads((adapter / "adapter_config.json").read_text())
    write(adapter / "adapter_config.json", {**config, "base_model_name_or_path": str(copy)})
    assert fingerprint(resolve_model(str(adapter))) == before
    write(adapter / "adapter_config.json", {**config, "r": 8})
    assert fingerprint(resolve_model(str(adapter))) != before
    write(adapter / "adapter_config.json", config)
    (adapter / "adapter_model.safetensors").write_bytes(b"other")
    assert fingerprint(resolve_model(str(adapter))) != before
    (adapter / "adapter_model.safetensors").write_bytes(b"lora")
    assert fingerprint(resolve_model(str(adapter))) == before
    with (copy / "config.json").open("a") as file:
        file.write(" ")
    assert fingerprint(resolve_model(str(adapter))) != before


def test_defaults_are_the_prh_json(copy, adapter):
    assert defaults("tiny")["protocol"] == "pixel-reasoner"
    assert defaults(str(copy)) == defaults("tiny")
    assert defaults(str(adapter)) == defaults("tiny")
    write(adapter / "prh.json", {"protocol": "direct"})
    assert defaults(str(adapter)) == {"protocol": "direct"}
    (copy / "prh.json").unlink()
    assert defaults(str(copy)) == {}


@pytest.mark.parametrize("text", ["{", "[1]", "\xff", "null", "[" * 200_000, '{"padding": NaN}'])
def test_a_malformed_prh_json_names_its_file(copy, text):
    (copy / "prh.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match=r"prh.json") as caught:
        defaults(str(copy))
    one_line(caught)


def test_a_setting_that_does_not_exist_names_the_file_and_the_key(copy, adapter):
    write(copy / "prh.json", {"protocol": "direct", "paddin": 0.1})
    for model in (copy, adapter):
        with pytest.raises(
            ModelError, match=r"copy/prh.json: `paddin` is not a setting; use one of protocol"
        ) as caught:
            defaults(str(model))
        one_line(caught)


def test_the_defaults_of_a_hub_id_are_one_file(copy, monkeypatch):
    asked = []
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url, timeout: asked.append((url, timeout)))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda model, name, **_: str(copy / name))
    assert defaults("org/name") == defaults("tiny")
    ((url, timeout),) = asked
    assert url.endswith("org/name/resolve/main/prh.json")
    assert timeout <= 5

    def unreachable(*_, **__):
        asked.append("")
        raise OSError

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    assert defaults("org/name") == {}
    assert len(asked) == 2
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert defaults("org/name") == {}
    assert defaults("no such model") == {}
    assert len(asked) == 2


def test_the_defaults_of_a_cached_hub_id_are_read_where_they_lie(copy, tmp_path, monkeypatch):
    repository = tmp_path / "hub" / "models--org--name"
    shutil.copytree(copy, repository / "snapshots" / "0123abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abc")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", None)
    assert defaults("org/name") == defaults("tiny")


UNREACHED = """
from prh.harness.errors import Prerequisite
from prh.models.checkpoint import defaults, resolve_model
print(defaults("no-such-org/no-such-model"))
try:
    resolve_model("no-such-org/no-such-model")
except Prerequisite as error:
    print(error)
"""


def test_a_hub_that_cannot_be_reached_is_found_out_quickly_and_told_in_one_line(tmp_path):
    import os
    import subprocess
    import sys
    import time

    kept = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE" and "proxy" not in key.lower()}
    unreached = {**kept, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", UNREACHED], capture_output=True, text=True, timeout=60, check=False, env=unreached
    )
    assert time.perf_counter() - start < 15
    assert done.stderr == ""
    settings, error = done.stdout.splitlines()
    assert settings == "{}"
    assert "is not in the local cache and cannot be downloaded: run `hf download" in error


@pytest.mark.parametrize("name", ["a" * 300, "~nouser/x", "a\0b", "a/" * 3000])
def test_a_name_that_cannot_be_a_path_is_an_error_in_one_line(adapter, name):
    assert accepts(name)
    for use in (defaults, resolve_model):
        with pytest.raises(ModelError, match=r"cannot be a path: .*; check the name") as caught:
            use(name)
        assert len(one_line(caught)) < 250
        assert "\0" not in str(caught.value)
    if name != "~nouser/x":
        write(adapter / "adapter_config.json", {"base_model_name_or_path": name})
        with pytest.raises(ModelError, match="cannot be a path"):
            resolve_model(str(adapter))


def test_the_module_does_not_load_torch():
    import subprocess
    import sys

    code = "import sys, prh.models.transformers_engine, prh.models.replay; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert checkpoint.accepts("tiny")
