"""The contract of versioned weights on the fakes, by the lowest and the highest vLLM of the range."""

import pytest
from prh.harness.engine import EngineOptions, Place
from prh.models.vllm_engine import VLLMFactory
from prh.tests.models import fake_vllm
from prh.tests.models.fake_server import ENVIRONMENT
from prh.tests.models.fake_vllm_serve import FakeServe
from prh.tests.models.synchronising import (  # noqa: F401 - the contract's tests
    Drawer,
    looping,
    test_adapters_are_drawn_with_and_not_read_again,
    test_it_is_put_aside_and_taken_up_with_the_same_weights,
    test_log_probabilities_are_those_that_tokens_were_drawn_by,
    test_several_turns_with_images,
    test_turns_around_a_change_are_each_of_one_version_and_say_which,
    test_weights_that_cannot_be_taken_end_the_drawing_until_others_come,
    test_whole_weights_are_drawn_with_at_once_and_nothing_older_is_used,
)

HERE = [("in this process", number) for number in (fake_vllm.LOWEST, fake_vllm.HIGHEST)]
SERVED = [("from a server", number) for number in (fake_vllm.SERVING[0], fake_vllm.HIGHEST)]


@pytest.fixture(scope="module")
def close():
    return 1e-4


@pytest.fixture
def folder(qwen25):
    return qwen25


@pytest.fixture(params=[*HERE, *SERVED], ids="-".join)
def opened(request, folder, monkeypatch):
    """Opens an engine for whole weights, or for adapters of a rank."""
    way, number = request.param
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    fake_vllm.install(monkeypatch, number)
    with looping() as play, FakeServe(folder, number) as server:

        def drawer(rank):
            place, sleep = Place(), {"sleep": "true"}
            if way == "from a server":
                place = Place(server=server.url, name="prh-1")
            engine = VLLMFactory().versioned(str(folder), EngineOptions(extra=sleep), rank, place)
            closed.append(engine)
            return Drawer(engine, play)

        closed = []
        yield drawer
        for engine in closed:
            play(engine.close())
        assert server.faults == []


@pytest.fixture
def whole(opened):
    return opened(0)


@pytest.fixture
def adapting(opened):
    return opened(4)
