// Calls the server with Node's `ws`, which nobody here wrote.
//
//     node client.mjs BEHAVIOUR URL CA-FILE
//
// Exits 0 if the server showed the behaviour, with an error otherwise. Every method of `behaviours`
// is one; tests/interop.rs runs each over ws and wss.

import { deepStrictEqual as equal, ok } from "node:assert";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";

import WebSocket from "ws";

const DEADLINE = 20_000; // milliseconds for one behaviour; on loopback it takes a fraction
const [name, url, caFile] = process.argv.slice(2);
const ca = url.startsWith("wss:") ? readFileSync(caFile) : undefined;

const message = (signalType, fromUser, toUser = "", more = {}) =>
  JSON.stringify({ msgType: "other", signalType, fromUser, toUser, ...more });

const fixture = (file) =>
  readFileSync(join(import.meta.dirname, "..", "fixtures", `${file}.json`), "utf8");

/** A client and the messages it has received but nobody has looked at. */
class Client {
  static async connect(protocols = []) {
    const client = new Client();
    client.socket = new WebSocket(url, protocols, { ca, perMessageDeflate: true });
    client.unread = [];
    client.socket.on("message", (data, isBinary) => {
      client.unread.push({ text: data.toString(), isBinary });
      client.socket.emit("unread");
    });
    client.socket.once("upgrade", ({ headers }) => { client.headers = headers; });
    await once(client.socket, "open");
    return client;
  }

  send(text, { binary = false } = {}) {
    this.socket.send(binary ? Buffer.from(text) : text);
  }

  /** The next message. The server answers in text frames only, whatever it was sent. */
  async receive() {
    if (this.unread.length === 0) await once(this.socket, "unread");
    const { text, isBinary } = this.unread.shift();
    ok(!isBinary, "a binary frame instead of text");
    return text;
  }

  async logIn(user, options) {
    const request = message("login", user);
    this.send(request, options);
    equal(JSON.parse(await this.receive()), { ...JSON.parse(request), success: "1" });
  }
}

const behaviours = {
  async a_call_arrives_byte_for_byte() {
    const alice = await Client.connect();
    const bob = await Client.connect();
    await alice.logIn("alice");
    await bob.logIn("bob", { binary: true });

    const aliceSends = async (text) => {
      alice.send(text);
      equal(await bob.receive(), text);
    };
    const bobSends = async (text) => {
      bob.send(text, { binary: true });
      equal(await alice.receive(), text);
    };
    await aliceSends(fixture("offer"));
    await bobSends(fixture("answer"));
    await aliceSends(fixture("candidate-1"));
    await aliceSends(fixture("candidate-2"));
    await bobSends(fixture("candidate-3"));
    await bobSends(fixture("candidate-4"));
    // Blanks, escapes, field order and unknown fields are the clients' own.
    await aliceSends(' {"toUser" : "bob","x":[1e2, null,"\\u00e9é\\/🙂"],\t"fromUser":"alice",' +
      '"signalType":"candidate"}\n');
    await bobSends(message("leave", "bob", "alice"));
  },

  async a_taken_name_is_refused_while_its_holder_lives() {
    const alice = await Client.connect();
    const other = await Client.connect();
    await alice.logIn("alice");
    const pinged = once(alice.socket, "ping"); // how the server finds out
    const request = message("login", "alice");
    other.send(request);
    equal(JSON.parse(await other.receive()),
      { ...JSON.parse(request), success: "0", reason: "name-taken" });
    await pinged;
    await other.logIn("bob");
    const offer = message("offer", "bob", "alice");
    other.send(offer);
    equal(await alice.receive(), offer);
  },

  async an_unknown_user_is_an_error_to_the_sender() {
    const alice = await Client.connect();
    await alice.logIn("alice");
    alice.send(message("offer", "alice", "bob"));
    equal(JSON.parse(await alice.receive()), {
      type: "error", message: "User not found: bob", code: "user-not-found",
      signalType: "offer", toUser: "bob",
    });
  },

  async the_first_subprotocol_is_echoed() {
    const alice = await Client.connect(["signal", "other"]);
    equal(alice.socket.protocol, "signal");
    await alice.logIn("alice");
    equal((await Client.connect()).socket.protocol, "");
  },

  async a_partner_hears_leave_when_a_client_dies() {
    const alice = await Client.connect();
    const bob = await Client.connect();
    await alice.logIn("alice");
    await bob.logIn("bob");
    alice.send(fixture("offer"));
    await bob.receive();
    alice.socket.terminate(); // no close frame, as when an app is killed
    equal(JSON.parse(await bob.receive()), JSON.parse(message("leave", "alice", "bob")));
  },

  async pings_are_answered() {
    const alice = await Client.connect();
    for (const payload of ["are you there?", ""]) {
      alice.socket.ping(payload);
      equal(String((await once(alice.socket, "pong"))[0]), payload);
    }
    await alice.logIn("alice");
  },

  async a_close_is_answered_with_1000() {
    const alice = await Client.connect();
    await alice.logIn("alice");
    alice.socket.close(1000, "bye");
    equal((await once(alice.socket, "close"))[0], 1000);
    await (await Client.connect()).logIn("alice"); // the name is free again
  },

  async a_stopping_server_closes_with_1001() {
    const alice = await Client.connect();
    await alice.logIn("alice");
    console.log("ready"); // interop.rs stops the server now
    equal((await once(alice.socket, "close"))[0], 1001);
  },

  async a_message_of_60_kb_arrives() {
    const alice = await Client.connect();
    const bob = await Client.connect();
    await alice.logIn("alice");
    await bob.logIn("bob");
    const offer = message("offer", "alice", "bob", { sdp: "x".repeat(60_000) });
    alice.send(offer);
    equal(await bob.receive(), offer);
    // In three frames, too.
    alice.socket.send(offer.slice(0, 10), { fin: false });
    alice.socket.send(offer.slice(10, 50_000), { fin: false });
    alice.socket.send(offer.slice(50_000), { fin: true });
    equal(await bob.receive(), offer);
  },

  async compression_is_declined() {
    const alice = await Client.connect();
    equal(alice.headers["sec-websocket-extensions"], undefined);
    equal(alice.socket.extensions, "");
    await alice.logIn("alice");
  },
};

setTimeout(() => {
  console.error(`not done after ${DEADLINE} ms`);
  process.exit(1);
}, DEADLINE).unref();
await behaviours[name]();
process.exit(0);
