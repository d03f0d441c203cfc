// As much of MessagePack as the protocol has. Bytes are Buffers, and maps are objects. Whole numbers beyond 2^53 are
// BigInts: a task's number may be one.
"use strict";

function encode(value) {
  const parts = [];
  write(value, parts);
  return Buffer.concat(parts);
}

function write(value, parts) {
  if (value === null || value === undefined) parts.push(Buffer.from([0xc0]));
  else if (typeof value === "boolean") parts.push(Buffer.from([value ? 0xc3 : 0xc2]));
  else if (typeof value === "bigint" || Number.isSafeInteger(value)) parts.push(whole(value));
  else if (typeof value === "number") parts.push(fixed(9, (b) => b.writeDoubleBE(value, 1), 0xcb));
  else if (typeof value === "string") {
    const text = Buffer.from(value);
    parts.push(head(text.length, [0xa0, 32, 0xd9, 0xda, 0xdb]), text);
  } else if (Buffer.isBuffer(value)) parts.push(head(value.length, [0, 0, 0xc4, 0xc5, 0xc6]), value);
  else if (Array.isArray(value)) {
    parts.push(head(value.length, [0x90, 16, null, 0xdc, 0xdd]));
    for (const one of value) write(one, parts);
  } else {
    const entries = Object.entries(value);
    parts.push(head(entries.length, [0x80, 16, null, 0xde, 0xdf]));
    for (const [key, one] of entries) write(key, parts), write(one, parts);
  }
}

function whole(value) {
  if (value >= -32 && value < 128) return Buffer.from([Number(value) & 0xff]);
  if (value < 0) return fixed(9, (b) => b.writeBigInt64BE(BigInt(value), 1), 0xd3);
  return head(value, [null, 0, 0xcc, 0xcd, 0xce]) || fixed(9, (b) => b.writeBigUInt64BE(BigInt(value), 1), 0xcf);
}

// The shortest head: within its first byte, or with 8, 16 or 32 bits; null where there is none.
function head(size, [short, shorts, one, two, four]) {
  if (size < shorts) return Buffer.from([short | size]);
  if (size < 256 && one !== null) return Buffer.from([one, Number(size)]);
  if (size < 65536) return fixed(3, (b) => b.writeUInt16BE(Number(size), 1), two);
  return size < 4294967296 ? fixed(5, (b) => b.writeUInt32BE(Number(size), 1), four) : null;
}

function fixed(size, fill, kind) {
  const bytes = Buffer.alloc(size);
  bytes[0] = kind;
  fill(bytes);
  return bytes;
}

function decode(bytes) {
  let at = 0;
  const take = (size) => {
    if (at + size > bytes.length) throw new Error("MessagePack ends too early");
    return bytes.subarray(at, (at += size));
  };
  const number = (size) => take(size).readUIntBE(0, size);
  const big = (value) => (Number.isSafeInteger(Number(value)) ? Number(value) : value);
  const text = (size) => take(size).toString();
  // No more items than there are bytes: a length that lies costs nothing.
  const items = (size, one) => Array.from({ length: Math.min(size, bytes.length - at + 1) }, one);
  const array = (size) => items(size, read);
  const map = (size) => Object.fromEntries(items(size, () => [read(), read()]));
  const readers = {
    0xc0: () => null, 0xc2: () => false, 0xc3: () => true,
    0xc4: () => take(number(1)), 0xc5: () => take(number(2)), 0xc6: () => take(number(4)),
    0xca: () => take(4).readFloatBE(), 0xcb: () => take(8).readDoubleBE(),
    0xcc: () => number(1), 0xcd: () => number(2), 0xce: () => number(4), 0xcf: () => big(take(8).readBigUInt64BE()),
    0xd0: () => take(1).readInt8(), 0xd1: () => take(2).readInt16BE(), 0xd2: () => take(4).readInt32BE(),
    0xd3: () => big(take(8).readBigInt64BE()),
    0xd9: () => text(number(1)), 0xda: () => text(number(2)), 0xdb: () => text(number(4)),
    0xdc: () => array(number(2)), 0xdd: () => array(number(4)), 0xde: () => map(number(2)), 0xdf: () => map(number(4)),
  };
  function read() {
    const kind = number(1);
    if (kind < 0x80) return kind;
    if (kind < 0x90) return map(kind & 15);
    if (kind < 0xa0) return array(kind & 15);
    if (kind < 0xc0) return text(kind & 31);
    if (kind >= 0xe0) return kind - 256;
    if (!readers[kind]) throw new Error(`MessagePack of kind 0x${kind.toString(16)} is not read here`);
    return readers[kind]();
  }
  return read();
}

module.exports = { decode, encode };
