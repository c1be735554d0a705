// A bare echo over HTTP, without any isolation, to be loaded as a worker is:
//
//   taskset -c 1 node benches/compare/node.mjs 9000 &
//   taskset -c 0 target/release/vilya load echo -d hello --server http://127.0.0.1:9000
import { createServer } from "node:http";

const port = Number(process.argv[2] ?? 9000);
createServer((request, response) => {
  const pieces = [];
  request.on("data", (piece) => pieces.push(piece));
  request.on("end", () => {
    const body = Buffer.concat(pieces);
    response.writeHead(200, { "content-length": body.length });
    response.end(body);
  });
}).listen(port, "127.0.0.1");
