// node main.js URL call TASK [ARGUMENT in JSON]…      publish a task, and show its result
// node main.js URL work QUEUE                         run the tasks below
"use strict";
const { KIND } = require("./frames");
const { connect } = require("./penstock");
const { work } = require("./worker");

const TASKS = {
  "js.shout": (text) => `${text.toUpperCase()}!`,
  "js.sum": (...numbers) => numbers.reduce((a, b) => a + b, 0),
  "js.hang": () => new Promise(() => {}),
  "js.fail": (why) => {
    throw new RangeError(why);
  },
};

async function main([url, verb, name, ...args]) {
  if (!["call", "work"].includes(verb) || !name) throw new Error("usage: main.js URL call TASK [JSON]… | work QUEUE");
  const client = await connect(url);
  if (verb === "work") {
    console.log(`serving ${name}`);
    await work(client, name, TASKS);
  }
  const id = await client.publish(name, args.map((text) => JSON.parse(text)));
  console.log(JSON.stringify({ id, ...(await client.result(id)) }));
  client.send(KIND.goodbye); // goodbye: nothing will be asked again
  client.socket.end();
}

main(process.argv.slice(2)).catch((error) => {
  console.error(`${error.code ?? "error"}: ${error.message}`);
  process.exit(1);
});
