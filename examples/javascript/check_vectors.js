// node check_vectors.js docs/protocol-vectors.json     Is what is read here what the vectors say, and written as read?
"use strict";
const assert = require("node:assert");
const { readFileSync } = require("node:fs");
const { cutter } = require("./frames");
const { decode, encode } = require("./msgpack");

// As JSON shows a value: bytes in hex, and whole numbers beyond 2^53 rounded.
function shown(value) {
  if (Buffer.isBuffer(value)) return { hex: value.toString("hex") };
  if (typeof value === "bigint") return Number(value);
  if (Array.isArray(value)) return value.map(shown);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, shown(one)]));
}

function check(bytes, value) {
  const read = decode(bytes);
  assert.deepStrictEqual(shown(read), value);
  assert.deepStrictEqual(decode(encode(read)), read);
}

const vectors = JSON.parse(readFileSync(process.argv[2]));
let frames = 0;
for (const { frame, value } of vectors.frames) {
  const bytes = Buffer.from(frame, "hex");
  check(bytes.subarray(4), value);
  const cut = cutter((read) => (assert.deepStrictEqual(shown(read), value), (frames += 1)));
  for (const byte of bytes) cut(Buffer.from([byte])); // however it comes
}
for (const { bytes, value } of vectors.messages) check(Buffer.from(bytes, "hex"), value);
for (const { arguments: given, answer } of vectors.verbs) {
  for (const { bytes, value } of [given, answer]) check(Buffer.from(bytes, "hex"), value);
}
assert.strictEqual(frames, vectors.frames.length);
console.log(`${frames} frames, ${vectors.messages.length} messages and ${vectors.verbs.length} verbs are read`);
