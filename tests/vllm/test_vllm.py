"""The installed vLLM: that it still has all that is relied on, and, where it can start, that its turns are ours.

Needs the environment of ``make test-vllm``. The interface is read without a GPU; the turns need one, or a CPU build.
"""

import asyncio

import pytest
from prh.harness.engine import EngineOptions, TurnSpec
from prh.models.transformers_engine import TransformersFactory
from prh.models.vllm_engine import VLLMFactory
from prh.tests.models.fake_vllm import LOWEST, SERVING
from prh.tests.models.support import conversation, noise, reply, say
from prh.tests.models.test_vllm_interface import ARGUMENTS, newer
from prh.tests.vllm.conftest import NOWHERE, number
from prh.tests.vllm.interface import missing, missing_served, recorded

pytestmark = pytest.mark.filterwarnings("ignore")  # vLLM warns as it is imported


def test_it_imports_and_takes_what_an_engine_is_started_with():
    import vllm
    from prh.models.vllm_engine import lora_request, sampling, vllm_version
    from vllm.lora.request import LoRARequest

    assert vllm_version() == vllm.__version__ or number() == vllm.__version__.partition("+")[0]
    request = lora_request("name", 3, "/adapter")
    assert isinstance(request, LoRARequest)
    assert (request.lora_name, request.lora_int_id, request.lora_path) == ("name", 3, "/adapter")
    made = sampling(TurnSpec(5, 0.7, 0.9, 3, ("</a>",), (3, 4)), 4, [7])
    assert (made.max_tokens, made.temperature, made.logprobs, made.logit_bias) == (4, 0.7, 0, {3: -100.0, 4: -100.0})


def test_it_has_all_that_is_relied_on(installed):
    assert not newer(LOWEST, number()), f"the engine vllm needs {LOWEST} at least"
    assert missing(installed, ARGUMENTS) == []
    if not newer(SERVING[0], number()):
        assert missing_served(installed) == []


def test_the_fakes_interface_is_this_one(installed):
    """Where it is recorded; another version is recorded with ``interface.py``."""
    if number() not in recorded():
        pytest.skip(f"the interface of {number()} is not recorded")
    assert installed == recorded()[number()]


@pytest.mark.skipif(bool(NOWHERE), reason=NOWHERE)
def test_its_turns_are_those_of_the_transformers_engine(folder):
    options = EngineOptions(dtype="float32", extra={"eager": "true", "memory": "0.2", "context": "4096"})
    theirs = VLLMFactory().open(str(folder), options)
    ours = TransformersFactory().open(str(folder), EngineOptions(dtype="float32"))
    first, second = (conversation(key) for key in ("a#0", "b#0"))
    for talk in (first, second):
        say(talk, "user", noise((84, 56), 1), "What is it?")

    async def play():
        for step in range(3):
            here, there = await ours.turn(first, TurnSpec(12)), await theirs.turn(second, TurnSpec(12))
            assert here.ids == there.ids
            assert there.logprobs == pytest.approx(here.logprobs, abs=1e-2)
            for talk, turn in ((first, here), (second, there)):
                reply(talk, turn)
                say(talk, "user", noise((56, 28 * (2 + step)), 10 + step), "And?")
        await ours.close()
        await theirs.close()

    asyncio.run(play())
