// BullMQ's client: answers one JSON request a line, as answer.py does.
const { Queue, QueueEvents } = require("bullmq");
const readline = require("readline");

const url = new URL(process.env.BENCH_URL);
const connection = { host: url.hostname, port: Number(url.port), maxRetriesPerRequest: null };
const queue = new Queue("noop", { connection });
const events = new QueueEvents("noop", { connection: { ...connection } });
const keep = { removeOnComplete: { age: 86400 } };

const acts = {
  async one_by_one({ count }) {
    await queue.add("noop", 0, keep);
    const started = process.hrtime.bigint();
    for (let number = 0; number < count; number++) await queue.add("noop", number, keep);
    return Number(process.hrtime.bigint() - started) / 1e9;
  },
  async fill({ count }) {
    const started = process.hrtime.bigint();
    for (let start = 0; start < count; start += 1000) {
      const jobs = [];
      for (let number = start; number < Math.min(start + 1000, count); number++)
        jobs.push({ name: "noop", data: number, opts: keep });
      await queue.addBulk(jobs);
    }
    return Number(process.hrtime.bigint() - started) / 1e9;
  },
  async latency({ count }) {
    await events.waitUntilReady();
    const taken = [];
    for (let number = -20; number < count; number++) {
      await new Promise((done) => setTimeout(done, 3 + 7 * Math.random()));
      const started = process.hrtime.bigint();
      const job = await queue.add("noop", number, keep);
      await job.waitUntilFinished(events, 10000);
      if (number >= 0) taken.push(Number(process.hrtime.bigint() - started) / 1e6);
    }
    return taken;
  },
};

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const request = JSON.parse(line);
    process.stdout.write(JSON.stringify(await acts[request.do](request)) + "\n");
  }
  process.exit(0);
})();
