// Frames: a length of four bytes, and that many bytes of MessagePack: an array that begins with its kind.
"use strict";
const { decode, encode } = require("./msgpack");

const KIND = {
  ...{ hello: 1, goodbye: 2, ping: 3, pong: 4, publish: 10, step: 12, call: 20, watch: 21, started: 23 },
  ...{ welcome: 101, refused: 102, published: 110, stepped: 112, value: 120, failed: 121, told: 130 },
};

function frame(value) {
  const body = encode(value);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(body.length);
  return Buffer.concat([length, body]);
}

// A function that is given what comes from the socket, and gives `take` each frame that is complete.
function cutter(take) {
  let rest = Buffer.alloc(0);
  return (data) => {
    rest = Buffer.concat([rest, data]);
    for (let end; rest.length >= 4 && rest.length >= (end = 4 + rest.readUInt32BE()); rest = rest.subarray(end)) {
      take(decode(rest.subarray(4, end)));
    }
  };
}

module.exports = { cutter, frame, KIND };
