"""Which server and model a name means, and what opening one says when it is not there."""

import socket
import sys

import pytest
from prh.harness.engine import EngineOptions
from prh.harness.errors import ModelError, Prerequisite, UsageError
from prh.harness.types import Size, Span
from prh.models.openai_engine import OpenAIFactory
from prh.models.openai_server import Address, Settings, read_key
from prh.tests.models.fake_server import ENVIRONMENT, MODEL, Answer, FakeServer


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    with FakeServer() as server:
        yield server
        assert server.faults == []


def opened(model, **extra):
    return OpenAIFactory().open(model, EngineOptions(extra=extra))


def refused(model, kind=ModelError, **extra):
    with pytest.raises(kind) as caught:
        opened(model, **extra)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("model", ["http://localhost:8000/v1", "https://api.example.org/v1#m", "HTTP://X/v1"])
def test_urls_are_accepted(model):
    assert OpenAIFactory().accepts(model)
    assert OpenAIFactory().defaults(model) == {}


@pytest.mark.parametrize(
    "model", ["tiny", "oracle", "Qwen/Qwen2.5-VL-7B-Instruct", "replay:http://x", "./http", "ftp://x", ""]
)
def test_other_names_are_not(model):
    assert not OpenAIFactory().accepts(model)


@pytest.mark.parametrize(
    ("text", "url", "model"),
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1", ""),
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1", ""),
        ("http://127.0.0.1:8000/v1#a/b", "http://127.0.0.1:8000/v1", "a/b"),
        ("http://127.0.0.1:8000/v1/#a#b?c", "http://127.0.0.1:8000/v1", "a#b?c"),
        ("https://[::1]:8000#m", "https://[::1]:8000", "m"),
        ("HTTPS://Host/deep/v1#m", "https://Host/deep/v1", "m"),
    ],
)
def test_an_address_is_a_base_url_and_a_name(text, url, model):
    assert Address.read(text) == Address(url, model)


@pytest.mark.parametrize(
    "text",
    ["http://", "http:///v1", "http://h:99999/v1", "http://[::1/v1", "http://a b/v1", "http://h\n/v1", "http://h:0/"],
)
def test_addresses_that_are_none(text):
    message = refused(text, UsageError)
    assert "must look like" in message


@pytest.mark.parametrize(
    "text", ["http://me:hunter2@h/v1", "http://hunter2@h/v1", "http://h/v1?key=hunter2", "http://me:hunter2@[/v1"]
)
def test_an_address_with_a_secret_is_refused_and_not_shown(text):
    message = refused(text, UsageError)
    assert "hunter2" not in message
    assert "OPENAI_API_KEY" in message


@pytest.mark.parametrize("key", ["sk-\u20ac", "sk-a\nb", "sk a", "sk-\x00"])
def test_a_key_that_no_header_can_carry_is_not_shown(monkeypatch, key):
    if "\x00" in key:
        monkeypatch.setattr("os.environ", {"OPENAI_API_KEY": key})
    else:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    message = refused("http://127.0.0.1:9/v1", UsageError)
    assert "sk" not in message


def test_the_key_is_the_environments(monkeypatch):
    assert read_key() == ""
    monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")
    assert read_key() == ""
    monkeypatch.setenv("OPENAI_API_KEY", " sk-1\n")
    assert read_key() == "sk-1"


def test_settings_are_read_from_text():
    assert Settings.read({}) == Settings()
    given = {"factor": "32", "timeout": "1.5", "retries": "0", "image_cache_mib": "0", "concurrency": "4"}
    assert Settings.read(given) == Settings(factor=32, timeout=1.5, retries=0, image_cache_mib=0, concurrency=4)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *[("factor", text) for text in ("0", "-28", "28.5", "x", "", "nan", "inf")],
        *[("timeout", text) for text in ("0", "-1", "nan", "inf", "soon")],
        *[("retries", text) for text in ("-1", "1.5", "many")],
        ("concurrency", "0"),
    ],
)
def test_settings_that_are_none(name, text):
    assert name in refused("http://127.0.0.1:9/v1", UsageError, **{name: text})


def test_an_unknown_setting_names_the_known_ones():
    message = refused("http://127.0.0.1:9/v1", UsageError, tempo="3")
    assert "tempo" in message
    assert "turn_seconds" in message


def test_the_only_model_needs_no_name(server):
    engine = opened(server.url)
    assert engine.server.address == Address(server.url, MODEL)
    assert engine.server.software == "vllm"
    assert engine.describe()["listed"] is True
    assert server.requests == []


def test_several_models_need_one(server):
    server.models += [{"id": f"adapter-{number}"} for number in range(12)]
    message = refused(server.url)
    assert f"serves {MODEL}, adapter-0," in message
    assert "and 3 more" in message
    assert f"{server.url}#NAME" in message
    assert opened(f"{server.url}#adapter-3").server.address.model == "adapter-3"


def test_no_model_at_all(server):
    server.models = []
    assert "no model that it lists" in refused(server.url)


def test_an_alias_that_is_not_listed_is_tried(server):
    engine = opened(f"{server.url}#latest")
    assert engine.describe()["listed"] is False
    assert [request["max_tokens"] for request in server.requests] == [1]


def test_a_wrong_name_is_told_with_the_names_that_there_are(server):
    server.plan.append(Answer({"error": {"message": "The model `wrong` does not exist."}}, 404))
    assert f"has no model 'wrong'; it serves {MODEL}" in refused(f"{server.url}#wrong")


def test_another_failure_of_the_trial_is_left_to_the_first_turn(server):
    server.plan.append(Answer({"error": {"message": "Use 'max_completion_tokens' instead."}}, 400))
    assert opened(f"{server.url}#o9").server.card == {}


def test_a_server_without_a_list_needs_a_name(server):
    server.list_answer = Answer({"detail": "Not Found"}, 404)
    assert opened(f"{server.url}#m").server.card == {}
    message = refused(server.url)
    assert "404" in message
    assert "name the model after #" in message
    assert "/v1" in message


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused(server, status):
    server.list_answer = Answer({"error": "Unauthorized"}, status)
    message = refused(f"{server.url}#m")
    assert f"{status}: Unauthorized; check OPENAI_API_KEY" in message


def test_a_server_that_sends_elsewhere_is_told_as_it_is_opened(server):
    server.list_answer = Answer("", 308, {"Location": "https://elsewhere/v1/models"})
    assert "GET /models: the server answers 308: nothing more; it points to https://elsewhere/v1/models" in refused(
        server.url
    )


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_fails_at_its_list_is_not_opened(server, status):
    server.list_answer = Answer("busy", status)
    assert f"answers {status}: busy" in refused(f"{server.url}#m")


@pytest.mark.parametrize(
    "body", ["<html>hello</html>", "", "[]", '{"data": 3}', '{"data": null}', b"\xff", '{"data": [NaN]}']
)
def test_what_is_no_list(server, body):
    server.list_answer = Answer(body)
    message = refused(f"{server.url}#m")
    assert "gives no list of models" in message
    assert "a base URL usually ends in /v1" in message


def test_entries_that_are_no_models_are_passed_over(server):
    server.models = [3, None, {}, {"id": 5}, {"id": "m", "owned_by": 3}]
    assert opened(server.url).server.address.model == "m"


def test_nothing_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    message = refused(url)
    assert message.startswith(f"{url}: cannot be reached")
    assert "check that the server runs" in message


def test_a_server_that_says_nothing(server):
    server.list_answer = Answer(cut=-1)
    assert "cannot be reached" in refused(server.url)


def test_a_server_that_speaks_something_else():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        message = refused(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", timeout="0.2")
        assert "no reply in time" in message


def test_the_package_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    message = refused("http://127.0.0.1:9/v1", Prerequisite)
    assert "pip install 'prh[api]'" in message


def test_the_fingerprint_is_the_models_not_the_addresss(server):
    first = opened(server.url).fingerprint
    with FakeServer() as other:
        assert opened(other.url).fingerprint == first
        assert opened(f"{other.url}/#{MODEL}").fingerprint == first
        other.models[0]["created"] += 1000
        assert opened(other.url).fingerprint == first
        seen = {first}
        for field, value in (("root", "/models/other"), ("max_model_len", 4096), ("owned_by", "me"), ("id", "x")):
            other.models[0][field] = value
            seen.add(opened(other.url).fingerprint)
        assert len(seen) == 5


def test_sizes_are_qwens_with_the_factor_that_is_set(server):
    budget = Span.tokens(4, 400)
    assert opened(server.url).fit(Size(1000, 500), budget) == (784, 392)
    assert opened(server.url, factor="32").fit(Size(1000, 500), budget) == (768, 384)
    assert opened(server.url, factor="32").describe()["factor"] == 32
