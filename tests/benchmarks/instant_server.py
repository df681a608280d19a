"""An OpenAI-compatible server that answers at once, in a process of its own: prints its port, runs until it is ended.

It reads a request's bytes and looks at nothing but how often an assistant speaks in it: a conversation crops twice and
then answers, or answers at once where the server was started with ``--turns 1``.
"""

import asyncio
import json
import sys

TURNS = int(sys.argv[sys.argv.index("--turns") + 1]) if "--turns" in sys.argv else 3
SAID = (b'"role":"assistant"', b'"role": "assistant"')
CROP = {"name": "crop_image_normalized", "arguments": {"bbox_2d": [0.1, 0.1, 0.5, 0.5], "target_image": 1}}
CALL = f"Look.\n<tool_call>\n{json.dumps(CROP)}\n</tool_call>"


def reply(text):
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 500, "completion_tokens": 20, "total_tokens": 520}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    return answer(body)


def answer(body):
    data = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(data), data)


LIST = answer({"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "bench"}]})
CALLS, ANSWERS = reply(CALL), reply("It is \\boxed{A}")


async def serve(reader, writer):
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = next(
                (int(line.split(b":")[1]) for line in head.lower().splitlines() if line.startswith(b"content-length")),
                0,
            )
            body = await reader.readexactly(length)
            if not length:
                writer.write(LIST)
            else:
                writer.write(ANSWERS if sum(map(body.count, SAID)) + 1 >= TURNS else CALLS)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 26, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
