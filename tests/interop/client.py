"""Calls the server with Python's `websockets`, which nobody here wrote.

    client.py BEHAVIOUR URL CA-FILE

Exits 0 if the server showed the behaviour, with a traceback otherwise. Every function below that
is registered by @behaviour is one; tests/interop.rs runs each over ws and wss.
"""

import asyncio
import json
import pathlib
import ssl
import sys

import websockets

DEADLINE = 20  # seconds for one behaviour; on loopback it takes a fraction of one
FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures"
BEHAVIOURS = {}


def behaviour(function):
    BEHAVIOURS[function.__name__] = function
    return function


def message(signal, sender, recipient="", **more):
    fields = {"msgType": "other", "signalType": signal, "fromUser": sender, "toUser": recipient}
    return json.dumps({**fields, **more})


def fixture(name):
    return (FIXTURES / f"{name}.json").read_bytes().decode()


async def receive(client):
    """The next message. The server answers in text frames only, whatever it was sent."""
    frame = await client.recv()
    assert isinstance(frame, str), f"a {type(frame).__name__} frame instead of text"
    return frame


async def log_in(client, name, *, binary=False):
    request = message("login", name)
    await client.send(request.encode() if binary else request)
    reply = json.loads(await receive(client))
    assert reply == {**json.loads(request), "success": "1"}, reply


def response_headers(client):
    """Of the upgrade. Debian 12 still has a version that names this differently."""
    return client.response.headers if hasattr(client, "response") else client.response_headers


class Server:
    def __init__(self, url, ca_file):
        self.url = url
        self.ssl = ssl.create_default_context(cafile=ca_file) if url.startswith("wss:") else None

    def connect(self, **options):
        # Pings are ours to send; permessage-deflate is offered, as by default.
        return websockets.connect(self.url, ssl=self.ssl, ping_interval=None, **options)


@behaviour
async def a_call_arrives_byte_for_byte(server):
    async with server.connect() as alice, server.connect() as bob:
        await log_in(alice, "alice")
        await log_in(bob, "bob", binary=True)

        async def alice_sends(text):
            await alice.send(text)
            assert await receive(bob) == text

        async def bob_sends(text):
            await bob.send(text.encode())
            assert await receive(alice) == text

        await alice_sends(fixture("offer"))
        await bob_sends(fixture("answer"))
        await alice_sends(fixture("candidate-1"))
        await alice_sends(fixture("candidate-2"))
        await bob_sends(fixture("candidate-3"))
        await bob_sends(fixture("candidate-4"))
        # Blanks, escapes, field order and unknown fields are the clients' own.
        odd = ' {"toUser" : "bob","x":[1e2, null,"\\u00e9é\\/🙂"],\t"fromUser":"alice",' \
            '"signalType":"candidate"}\n'
        await alice_sends(odd)
        await bob_sends(message("leave", "bob", "alice"))


@behaviour
async def a_taken_name_is_refused_while_its_holder_lives(server):
    # The server pings the holder to find out; the library answers by itself.
    async with server.connect() as alice, server.connect() as other:
        await log_in(alice, "alice")
        request = message("login", "alice")
        await other.send(request)
        reply = json.loads(await receive(other))
        assert reply == {**json.loads(request), "success": "0", "reason": "name-taken"}, reply
        await log_in(other, "bob")
        offer = message("offer", "bob", "alice")
        await other.send(offer)
        assert await receive(alice) == offer


@behaviour
async def an_unknown_user_is_an_error_to_the_sender(server):
    async with server.connect() as alice:
        await log_in(alice, "alice")
        await alice.send(message("offer", "alice", "bob"))
        reply = json.loads(await receive(alice))
        assert reply == {
            "type": "error", "message": "User not found: bob", "code": "user-not-found",
            "signalType": "offer", "toUser": "bob",
        }, reply


@behaviour
async def the_first_subprotocol_is_echoed(server):
    async with server.connect(subprotocols=["signal", "other"]) as alice:
        assert alice.subprotocol == "signal", alice.subprotocol
        await log_in(alice, "alice")
    async with server.connect() as bob:
        assert bob.subprotocol is None, bob.subprotocol


@behaviour
async def a_partner_hears_leave_when_a_client_dies(server):
    async with server.connect() as alice, server.connect() as bob:
        await log_in(alice, "alice")
        await log_in(bob, "bob")
        await alice.send(fixture("offer"))
        await receive(bob)
        alice.transport.abort()  # no close frame, as when an app is killed
        leave = json.loads(await receive(bob))
        assert leave == json.loads(message("leave", "alice", "bob")), leave


@behaviour
async def pings_are_answered(server):
    async with server.connect() as alice:
        await (await alice.ping(b"are you there?"))
        await (await alice.ping(b""))
        await log_in(alice, "alice")


@behaviour
async def a_close_is_answered_with_1000(server):
    async with server.connect() as alice, server.connect() as bob:
        await log_in(alice, "alice")
        await alice.close(1000, "bye")
        assert alice.close_code == 1000, alice.close_code
        await log_in(bob, "alice")  # the name is free again


@behaviour
async def a_stopping_server_closes_with_1001(server):
    async with server.connect() as alice:
        await log_in(alice, "alice")
        print("ready", flush=True)  # interop.rs stops the server now
        await alice.wait_closed()
        assert alice.close_code == 1001, alice.close_code


@behaviour
async def a_message_of_60_kb_arrives(server):
    async with server.connect() as alice, server.connect() as bob:
        await log_in(alice, "alice")
        await log_in(bob, "bob")
        offer = message("offer", "alice", "bob", sdp="x" * 60_000)
        await alice.send(offer)
        assert await receive(bob) == offer
        # In three frames, too.
        await alice.send([offer[:10], offer[10:50_000], offer[50_000:]])
        assert await receive(bob) == offer


@behaviour
async def compression_is_declined(server):
    async with server.connect(compression="deflate") as alice:
        headers = response_headers(alice)
        assert "Sec-WebSocket-Extensions" not in headers, headers
        await log_in(alice, "alice")


def main():
    name, url, ca_file = sys.argv[1:]
    asyncio.run(asyncio.wait_for(BEHAVIOURS[name](Server(url, ca_file)), DEADLINE))


main()
