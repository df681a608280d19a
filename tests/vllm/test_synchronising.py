"""The contract of versioned weights on the installed vLLM: in this process, and from a server started as the docs do.

Needs the environment of ``make test-vllm`` and what the installed vLLM starts on: a GPU, or a CPU build of it.
"""

from contextlib import ExitStack

import pytest
from prh.harness.engine import EngineOptions, Place
from prh.models.vllm_engine import VLLMFactory
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
from prh.tests.vllm.conftest import NOWHERE, number, sleeps
from prh.tests.vllm.interface import missing_served
from prh.tests.vllm.serving import CONTEXT, serving

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # vLLM warns as it is imported
    pytest.mark.skipif(bool(NOWHERE), reason=NOWHERE),
]


@pytest.fixture(scope="module")
def close():
    """Kernels differ; log-probabilities of other weights differ by more than five times this."""
    return 0.02


@pytest.fixture(scope="module", params=["in this process", "from a server"])
def opened(request, folder, installed, tmp_path_factory):
    """Opens an engine for whole weights, or for adapters of a rank, once."""
    served = request.param == "from a server"
    if served and missing_served(installed):
        pytest.skip(f"rollouts from a server need a newer vLLM than {number()}: {missing_served(installed)}")
    with ExitStack() as stack:
        play, made = stack.enter_context(looping()), {}

        def drawer(rank):
            if rank not in made:
                made[rank] = Drawer(engine(rank), play, sleeps=sleeps())
                stack.callback(lambda: play(made[rank].engine.close()))
            return made[rank]

        def engine(rank):
            extra = {"eager": "true", "memory": "0.2", "context": str(CONTEXT), "sleep": str(sleeps()).lower()}
            place = Place()
            if served:
                log = tmp_path_factory.mktemp("serve") / "log.txt"
                place = Place(server=stack.enter_context(serving(folder, rank, log)), name="prh-contract")
                extra = {"sleep": extra["sleep"]}
            return VLLMFactory().versioned(str(folder), EngineOptions(dtype="float32", extra=extra), rank, place)

        yield drawer


@pytest.fixture
def whole(opened):
    return opened(0)


@pytest.fixture
def adapting(opened):
    return opened(4)
