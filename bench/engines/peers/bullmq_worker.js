// A BullMQ worker; its results are the return values that it keeps with the completed jobs.
const { Worker } = require("bullmq");
const fs = require("fs");

const url = new URL(process.env.BENCH_URL);
const marks = fs.openSync(process.env.BENCH_MARKS, "a");
const worker = new Worker("noop", async () => { fs.writeSync(marks, "x"); return null; }, {
  connection: { host: url.hostname, port: Number(url.port), maxRetriesPerRequest: null },
  concurrency: 100,
});
worker.on("error", (error) => console.error(error));
process.on("SIGTERM", async () => { await worker.close(); process.exit(0); });
