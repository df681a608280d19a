"""Images in a request's body: where their tokens stood, the same bytes for every request, and nowhere else."""

import json

from hypothesis import given
from hypothesis import strategies as st
from prh.models import openai_body
from prh.models.openai_body import PIECE, Placed, parts
from prh.models.openai_messages import PngCache, write_messages
from prh.tests.models.support import conversation, noise, say


@given(st.lists(st.one_of(st.text(max_size=40), st.integers(0, 3)), max_size=12))
def test_a_body_is_what_json_of_it_all_would_be(pieces):
    cache, images = PngCache(1 << 24), [noise((28, 28), seed) for seed in range(4)]
    placed = Placed(cache)
    body = json.dumps([placed.url(images[one]) if isinstance(one, int) else one for one in pieces]).encode()
    whole = [cache.url(images[one]) if isinstance(one, int) else one for one in pieces]
    made = parts(body, placed.held)
    assert json.loads(b"".join(made)) == whole
    shared = [part for part in made if part.startswith(b"data:image/png")]
    assert all(
        part is cache.data(images[one])
        for part, one in zip(shared, (p for p in pieces if isinstance(p, int)), strict=True)
    )


def test_requests_share_the_images_of_the_cache():
    cache, talk = PngCache(1 << 24), conversation()
    say(talk, "user", noise((56, 56), 1), "What?")
    held = []
    for _ in range(2):
        placed = Placed(cache)
        message = json.dumps(write_messages(talk, placed))
        assert len(message) < 300, "no image in it"
        held += placed.held.values()
    assert held[0] is held[1]


def test_a_text_that_looks_like_a_token_is_text():
    placed = Placed(PngCache(1 << 20))
    token = placed.url(noise((28, 28), 1))
    other = token.replace(openai_body._NONCE, "prh-image-" + "0" * 32 + "-")
    body = json.dumps([other]).encode()
    assert parts(body, placed.held) == [body]


def test_a_large_image_is_sent_in_pieces():
    class Request:
        pass

    import asyncio

    from openai import DefaultAsyncHttpxClient

    flavour = openai_body._flavour(DefaultAsyncHttpxClient)
    large = b"x" * (3 * PIECE + 5)
    stream = openai_body._stream(flavour.AsyncByteStream.__module__)([b"head", large, b""])

    async def read():
        return [len(piece) async for piece in stream]

    assert asyncio.run(read()) == [4, PIECE, PIECE, PIECE, 5]
