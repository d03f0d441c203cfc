// A client of `penstock broker` in sixty lines of code. docs/protocol.md says what each frame means.
//
//     const client = await connect("penstock://bob:secret@127.0.0.1:7419/");
//     const id = await client.publish("tasks.add", [2, 3]);
//     const { state, value } = await client.result(id);
"use strict";
const net = require("node:net");
const tls = require("node:tls");
const { cutter, frame, KIND } = require("./frames");
const { encode } = require("./msgpack");

async function connect(url) {
  const { protocol, hostname: host, port, username, password, pathname } = new URL(url);
  const [user, secret, namespace] = [username, password, pathname.slice(1)].map(decodeURIComponent);
  const client = new Client((protocol === "penstocks:" ? tls : net).connect({ host, port: port || 7419 }));
  client.send(KIND.hello, 1, 1, "example in JavaScript", namespace, user, secret, 0, true);
  await client.expect("welcome");
  return client;
}

class Client {
  constructor(socket) {
    Object.assign(this, { socket, waiting: new Map(), number: 0 });
    socket.setNoDelay(true).on("data", cutter((fields) => this.take(...fields)));
    socket.on("error", (error) => this.lose(error)).on("close", () => this.lose(new Error("the connection has ended")));
  }

  send(...fields) {
    if (!this.lost) this.socket.write(frame(fields));
  }

  take(kind, first, ...rest) {
    if (kind === KIND.ping) this.send(KIND.pong);
    else if (kind === KIND.welcome) this.settle("welcome");
    else if (kind === KIND.refused) this.lose(Object.assign(new Error(rest[0]), { code: first }));
    else if (kind === KIND.failed) this.settle(first, null, Object.assign(new Error(rest[1]), { code: rest[0] }));
    else if (kind === KIND.told) for (const report of first) this.settle(report.id, report);
    else this.settle(first, rest);
  }

  expect(key) {
    if (this.lost) return Promise.reject(this.lost);
    return new Promise((resolve, reject) => this.waiting.set(key, { resolve, reject }));
  }

  settle(key, value, error) {
    const { resolve, reject } = this.waiting.get(key) ?? {};
    if (this.waiting.delete(key)) error ? reject(error) : resolve(value);
  }

  // What was asked may have been done all the same. A publish may be repeated with its id, and is recognised.
  lose(error) {
    this.lost ??= error;
    for (const key of this.waiting.keys()) this.settle(key, null, this.lost);
    this.socket.destroy();
  }

  ask(kind, ...fields) {
    this.send(kind, ++this.number, ...fields);
    return this.expect(this.number);
  }

  async publish(task, args, { queue = "default", id = crypto.randomUUID(), timeout = 5 } = {}) {
    const message = encode([1, task, Buffer.from(JSON.stringify([args, {}])), id, queue]);
    const [[[, [answer]]]] = await this.ask(KIND.publish, 0, false, timeout, [[message]]);
    if (!["accepted", "duplicate"].includes(answer.type)) throw Object.assign(new Error(answer.type), { answer });
    return answer.key;
  }

  async result(id) {
    this.send(KIND.watch, [id]);
    const { state, outcome } = await this.expect(id);
    return { state, value: outcome && JSON.parse(outcome.value) };
  }
}

module.exports = { connect };
