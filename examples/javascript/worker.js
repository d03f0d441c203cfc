// Runs tasks that anybody has published: each slot asks for one, which is its credit, runs it, and settles it with the
// next request.
"use strict";
const { randomBytes } = require("node:crypto");
const { hostname } = require("node:os");
const { KIND } = require("./frames");
const { decode } = require("./msgpack");

const LEASE = 30, WAIT = 20, MAX_ATTEMPTS = 3;
const now = () => Date.now() / 1000;

// Run `tasks` (name → function) of `queue` until the connection ends, whose error is thrown.
async function work(client, queue, tasks, slots = 4) {
  const worker = randomBytes(16).toString("hex");
  const running = new Set();
  const note = () => client.send(KIND.started, worker, [...running]);
  const started = now(), pid = process.pid, name = "javascript", host = hostname();
  const me = { id: worker, name, host, pid, slots, queues: [queue], pool: "node", started };
  await client.ask(KIND.call, "join", [me]);
  const renew = () => client.ask(KIND.call, "renew", [[worker], LEASE]).catch(() => {});
  const renewing = setInterval(renew, (LEASE * 1000) / 3);
  const slot = async () => {
    for (let ended = []; ; ) {
      // Only who has nothing to settle may wait: the answer would come with the next task.
      const want = { queues: [queue], limit: 1, worker, lease: LEASE, wait: ended.length ? 0 : WAIT };
      const [, , claims] = await client.ask(KIND.step, 0, false, [], ended, want);
      ended = [];
      for (const [token, rows, letGo] of claims) {
        for (const [row, attempts, body] of rows) {
          const pair = [token, row];
          running.add(pair), note(); // should this process die of it, this task is charged, and no other
          ended.push([token, row, ...(await run(tasks, attempts, body, letGo))]);
          running.delete(pair), note();
        }
      }
    }
  };
  await Promise.all(Array.from({ length: slots }, slot)).finally(() => clearInterval(renewing));
}

// Verdict, outcome, effects and the task's name.
async function run(tasks, attempts, body, letGo) {
  const [, name, args, , , , , , , expires] = decode(body);
  const began = now();
  const outcome = (state, value) => {
    return { state, value: Buffer.from(JSON.stringify(value ?? null)), done: now(), runtime: now() - began };
  };
  try {
    if (expires != null && expires <= (letGo ?? now())) {
      const why = { type: "TaskRevoked", module: "penstock.errors", message: "expired before it could start" };
      return [{ type: "ack" }, outcome("REVOKED", why), [], name];
    }
    if (attempts >= MAX_ATTEMPTS) throw new Error(`its worker died ${attempts} times`);
    if (!Object.hasOwn(tasks, name)) throw new Error(`no task ${name} here`);
    return [{ type: "ack" }, outcome("SUCCESS", await tasks[name](...JSON.parse(args)[0])), [], name];
  } catch (error) {
    const failure = { type: error.name, module: "javascript", message: error.message, traceback: error.stack };
    return [{ type: "dead", reason: `${error}` }, outcome("FAILURE", failure), [], name];
  }
}

module.exports = { work };
