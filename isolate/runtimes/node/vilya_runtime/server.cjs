// The life of the runtime: load the function, say that it is ready, run invocations, stop.
//
// Everything here runs on the event loop: handlers that wait run at once, up to the function's `concurrency`, and one that
// does not yield keeps the others waiting. Output is synchronous, so what a handler printed is out before its answer is.
'use strict';

const { About, Context } = require('./context.cjs');
const { Failure, report } = require('./failures.cjs');
const handlers = require('./handlers.cjs');

const OLDEST = 18;
/** Where a sandbox has its function's files. */
const FUNCTION = '/function';
const JSON_TYPE = 'application/json';

/** Serves until the worker, which is of `release`, says stop; the process then ends with 0. */
async function main(addonPath, release, isAhead) {
  // The loader of modules is set up by the first import, which can be done before there is a function.
  if (isAhead) await import('data:text/javascript,');
  const channel = join(addonPath, release, isAhead);
  if (isAhead) adopt(channel.environment());
  Object.defineProperty(globalThis, 'vilya', { value: Object.freeze({ raw: handlers.raw }) });
  let handler;
  try {
    handler = await handlers.load(process.env.VILYA_HANDLER ?? '', process.cwd());
  } catch (error) {
    channel.initFailed(report(error, channel.failureLimit));
    process.exit(1);
  }
  new Server(channel, handler, require(addonPath).PART_BYTES).serve();
}

/** Becomes the process of the function that has this environment, which names every variable that there is already. */
function adopt(environment) {
  for (const variable of environment.split('\0').filter((variable) => variable !== '')) {
    const at = variable.indexOf('=');
    process.env[variable.slice(0, at)] = variable.slice(at + 1);
  }
  process.chdir(FUNCTION);
}

function join(addonPath, release, isAhead) {
  try {
    if (Number.parseInt(process.versions.node, 10) < OLDEST) {
      throw new Error(`Node ${process.versions.node} is too old: install Node ${OLDEST} or later, or set runtimes.node.interpreter`);
    }
    const addon = require(addonPath);
    if (addon.VERSION !== release) {
      throw new Error(`the addon is of release ${addon.VERSION}, the worker of ${release}: install the worker's`);
    }
    return isAhead ? addon.Channel.joinWhenTold() : addon.Channel.join();
  } catch (error) {
    process.stderr.write(`vilya: ${error.message}\n`);
    return process.exit(1);
  }
}

/** Runs invocations of one loaded function. */
class Server {
  #channel;
  #call;
  #about = new About(process.env);
  #defaultType;
  #partBytes;
  #running = new Set();
  #stopping = false;

  constructor(channel, handler, partBytes) {
    this.#channel = channel;
    this.#partBytes = partBytes;
    this.#call = handlers.adapt(handler);
    this.#defaultType = handler[handlers.RAW] ? null : JSON_TYPE;
  }

  serve() {
    this.#channel.serve((invocation, stops) => {
      if (invocation !== null) return this.#run(invocation);
      if (!stops) return this.#running.forEach(Context.look);
      this.#stopping = true;
      this.#endWhenDone();
    });
  }

  #run(invocation) {
    const context = new Context(this.#about, invocation);
    this.#running.add(context);
    let result;
    try {
      result = this.#call(invocation, context);
    } catch (error) {
      return this.#fail(invocation, context, error);
    }
    if (typeof result?.then !== 'function') return this.#answer(invocation, context, result);
    result.then(
      (value) => this.#answer(invocation, context, value),
      (error) => this.#fail(invocation, context, error),
    );
  }

  #answer(invocation, context, result) {
    if (handlers.isParts(result)) return this.#answerInParts(invocation, context, result);
    const type = context.contentType ?? this.#defaultType;
    Context.end(context);
    try {
      if (typeof result === 'string') invocation.answerText(result, type);
      else invocation.answerBytes(result, type);
    } catch (error) {
      return this.#fail(invocation, context, new Failure('Runtime.ResponseError', error.message));
    }
    this.#end(context);
  }

  #answerInParts(invocation, context, parts) {
    const send = (bytes) => invocation.sendPart(bytes, context.contentType ?? null);
    handlers.sendParts(parts, send, this.#partBytes).then(
      (isTaken) => {
        if (isTaken) return this.#answer(invocation, context, new Uint8Array(0));
        Context.end(context);
        const account = { errorType: 'Runtime.NobodyTakes', errorMessage: 'nobody takes any more of this answer', stackTrace: [] };
        invocation.fail(JSON.stringify(account));
        this.#end(context);
      },
      (error) => this.#fail(invocation, context, error),
    );
  }

  #fail(invocation, context, error) {
    Context.end(context);
    invocation.fail(report(error, this.#channel.failureLimit));
    this.#end(context);
  }

  #end(context) {
    this.#running.delete(context);
    this.#endWhenDone();
  }

  #endWhenDone() {
    if (this.#stopping && this.#running.size === 0) process.exit(0);
  }
}

module.exports = { main };
