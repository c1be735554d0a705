// The conformance function in Node: `end_to_end/runtimes.rs` says what it must do.
import { setTimeout as sleep } from 'node:timers/promises';

if (process.env.BROKEN !== undefined) process.exit(4);

class Refused extends Error {}

let waiting = [];

/** Returns once four have come. */
function meet() {
  return new Promise((resolve) => {
    waiting.push(resolve);
    if (waiting.length === 4) waiting.splice(0).forEach((each) => each());
  });
}

async function* parts(word, context) {
  context.contentType = 'text/csv';
  if (word === 'parts') {
    yield Buffer.from('one,');
    yield 'zwei,';
    yield '';
    yield new Uint8Array(Buffer.from('three'));
  } else if (word === 'parts large') {
    for (let number = 0; number < 64; number++) yield new Uint8Array(1 << 20).fill(number);
  } else if (word === 'parts raise') {
    yield 'begun';
    throw new Refused('in the middle');
  } else if (word === 'parts exit') {
    yield 'begun';
    process.exit(3);
  } else {
    try {
      for (;;) yield 'tick\n';
    } finally {
      console.log('not taken');
    }
  }
}

export const handler = vilya.raw(async (request, context) => {
  switch (request.length <= 16 ? request.toString() : '') {
    case 'raise':
      throw new Refused('asked "to"');
    case 'exit':
      process.exit(3);
    case 'id':
      return Buffer.from(context.requestId);
    case 'environment':
      return Buffer.from(process.env.GREETING);
    case 'meet':
      await meet();
      return Buffer.from('met');
    case 'large':
      return new Uint8Array((64 << 20) + 1);
    case 'print':
      process.stdout.write('to stdout');
      console.error('to stderr');
      console.log();
      return null;
    case 'remaining':
      return Buffer.from(String(context.getRemainingTimeInMillis()));
    case 'wait':
      console.log('waiting');
      while (!context.cancelled) await sleep(5);
      console.log('gave up');
      return null;
    case 'parts':
    case 'parts large':
    case 'parts raise':
    case 'parts exit':
    case 'parts endless':
      return parts(request.toString(), context);
    default:
      context.contentType = context.requestContentType || null;
      return request;
  }
});
