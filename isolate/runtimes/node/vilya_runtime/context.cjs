// What a handler learns of its invocation: the second argument.
//
// Names follow the context of AWS Lambda, so that code written for it runs here. Once its invocation is answered, a context
// says what it said before and nothing else.
'use strict';

/** What stays the same for every invocation of this sandbox, from its environment. */
class About {
  constructor(environment) {
    this.name = environment.VILYA_FUNCTION ?? 'function';
    this.version = environment.VILYA_VERSION ?? '1';
    this.memoryInMB = String(Math.floor(Number(environment.VILYA_MEMORY_BYTES ?? 0) / (1 << 20)));
    // Of this process, which is not a copy of another.
    this.logStreamName = `${this.version}/${Math.random().toString(16).slice(2, 18).padEnd(16, '0')}`;
  }
}

class Context {
  #about;
  #invocation;
  #id;
  #contentType = null;
  #controller = null;
  #cancelled = false;

  /** For callbacks: accepted, and without effect. */
  callbackWaitsForEmptyEventLoop = true;

  constructor(about, invocation) {
    this.#about = about;
    this.#invocation = invocation;
    this.#id = invocation.id();
  }

  // Of the function.

  get functionName() {
    return this.#about.name;
  }
  get functionVersion() {
    return this.#about.version;
  }
  /** A name in the form that libraries written for AWS Lambda take apart. */
  get invokedFunctionArn() {
    return `arn:aws:lambda:local:000000000000:function:${this.#about.name}`;
  }
  get memoryLimitInMB() {
    return this.#about.memoryInMB;
  }
  get logGroupName() {
    return `/vilya/${this.#about.name}`;
  }
  get logStreamName() {
    return this.#about.logStreamName;
  }

  // Of the request.

  /** As the worker's own answer shows it: 32 hexadecimal digits. */
  get requestId() {
    return this.#id;
  }
  /** The same id in the form of AWS Lambda, which is a UUID's. */
  get awsRequestId() {
    return this.#id.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
  }
  /** The request's content type; empty when it named none. */
  get requestContentType() {
    return this.#invocation?.contentType() ?? '';
  }
  /** The request's W3C `traceparent`; empty when it had none. */
  get traceParent() {
    return this.#invocation?.traceParent() ?? '';
  }
  /** When the worker received the request, in milliseconds since the Unix epoch. */
  get receivedUnixMs() {
    return this.#invocation?.receivedUnixMs() ?? 0;
  }
  /** Milliseconds until the worker gives the invocation up; 0 once it has. */
  getRemainingTimeInMillis() {
    return this.#invocation?.remainingMs() ?? 0;
  }
  /** Whether the caller is gone: what is returned now will be thrown away. */
  get cancelled() {
    return this.#invocation?.cancelled() ?? this.#cancelled;
  }
  /** An `AbortSignal` that fires when the caller is gone. */
  get signal() {
    if (this.#controller === null) {
      this.#controller = new AbortController();
      if (this.cancelled) this.#controller.abort();
    }
    return this.#controller.signal;
  }

  // Of the response.

  /** Its content type; null stands for the default. */
  get contentType() {
    return this.#contentType;
  }
  set contentType(value) {
    this.#contentType = value === null || value === undefined ? null : String(value);
  }

  /** For the runtime: some invocation was cancelled, perhaps this one. */
  static look(context) {
    if (context.cancelled && context.#controller !== null) context.#controller.abort();
  }

  /** For the runtime: the invocation is about to be answered. */
  static end(context) {
    context.#cancelled = context.cancelled;
    context.#invocation = null;
  }
}

module.exports = { About, Context };
