// Finding the function and calling it.
//
// Owns the two contracts, JSON and raw: how a payload becomes an argument and a result a payload. Knows no rings.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { pathToFileURL } = require('node:url');
const { Failure } = require('./failures.cjs');

const RAW = Symbol.for('vilya.raw');
/** In this order, as Node itself would prefer none of them. */
const EXTENSIONS = ['.mjs', '.js', '.cjs'];

/** Marks a handler as taking bytes and returning bytes. */
function raw(handler) {
  handler[RAW] = true;
  return handler;
}

/** Imports `path/module.export` below `folder` and returns the function; throws a `Failure` that says what is wrong. */
async function load(name, folder) {
  const directory = path.dirname(name);
  const [, base, wanted] = /^([^.]+)\.(.+)$/.exec(path.basename(name)) ?? [];
  if (base === undefined) {
    throw new Failure('Runtime.MalformedHandlerName', `the handler "${name}" is not of the form module.function`);
  }
  const stem = path.join(folder, directory, base);
  const file = EXTENSIONS.map((extension) => stem + extension).find((candidate) => fs.existsSync(candidate));
  if (file === undefined) {
    const names = EXTENSIONS.map((extension) => base + extension).join(', ');
    throw new Failure('Runtime.ImportModuleError', `there is no ${names} in ${path.dirname(stem)}`);
  }
  const module = await importFile(file);
  const handler = wanted.split('.').reduce((value, key) => value?.[key], module);
  if (handler === undefined) {
    throw new Failure('Runtime.HandlerNotFound', `"${wanted}" is not exported by ${path.relative(folder, file)}`);
  }
  if (typeof handler !== 'function') {
    throw new Failure('Runtime.HandlerNotFound', `"${name}" is not a function but of type ${typeof handler}`);
  }
  return handler;
}

async function importFile(file) {
  try {
    if (file.endsWith('.mjs')) return await import(pathToFileURL(file));
    try {
      return require(file);
    } catch (error) {
      if (error?.code !== 'ERR_REQUIRE_ESM') throw error;
      return await import(pathToFileURL(file));
    }
  } catch (error) {
    if (error instanceof SyntaxError) {
      throw new Failure('Runtime.UserCodeSyntaxError', `${path.basename(file)}: ${error.message}`, error);
    }
    if (error?.code === 'MODULE_NOT_FOUND' || error?.code === 'ERR_MODULE_NOT_FOUND') {
      throw new Failure('Runtime.ImportModuleError', error.message.split('\n')[0], error);
    }
    throw error;
  }
}

/** The function as `call(invocation, context)`, of bytes or text or a promise of either. */
function adapt(handler) {
  const run = handler.length < 3 ? handler : promised(handler);
  return handler[RAW] ? adaptRaw(run) : adaptJson(run);
}

/** The older form of a handler, `(event, context, callback)`. */
function promised(handler) {
  return (event, context) =>
    new Promise((resolve, reject) => {
      const callback = (error, value) => (error === null || error === undefined ? resolve(value) : reject(error));
      const result = handler(event, context, callback);
      if (typeof result?.then === 'function') result.then(resolve, reject);
    });
}

function adaptRaw(run) {
  return (invocation, context) => {
    const result = run(invocation.bytes(), context);
    return typeof result?.then === 'function' ? result.then(toBytes) : toBytes(result);
  };
}

/** What a handler returns that answers in parts: an async generator, a stream, or a generator of a generator function. */
function isParts(result) {
  return typeof result?.[Symbol.asyncIterator] === 'function' || Object.prototype.toString.call(result) === '[object Generator]';
}

/** Sends parts one after the other with `send(bytes)`, a promise of whether somebody takes more. Whether all were taken. */
async function sendParts(parts, send, most) {
  for await (const part of parts) {
    const bytes = typeof part === 'string' ? Buffer.from(part) : toBytes(part);
    for (let at = 0; at < bytes.length; at += most) {
      // Leaving the loop ends the generator.
      if (!(await send(bytes.subarray(at, at + most)))) return false;
    }
  }
  return true;
}

function toBytes(result) {
  if (isParts(result)) return result;
  if (result instanceof Uint8Array) return result;
  if (result === undefined || result === null) return new Uint8Array(0);
  if (ArrayBuffer.isView(result)) return new Uint8Array(result.buffer, result.byteOffset, result.byteLength);
  if (result instanceof ArrayBuffer) return new Uint8Array(result);
  throw new TypeError(`a raw handler returns a Uint8Array or an ArrayBuffer, not ${typeof result}; encode text with Buffer.from`);
}

function adaptJson(run) {
  return (invocation, context) => {
    const result = run(parse(invocation.text()), context);
    return typeof result?.then === 'function' ? result.then(stringify) : stringify(result);
  };
}

function parse(text) {
  if (text === null) throw new Failure('Runtime.UnmarshalError', 'Unable to unmarshal input: it is not UTF-8');
  if (text === '') return null;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Failure('Runtime.UnmarshalError', `Unable to unmarshal input: ${error.message}`);
  }
}

function stringify(result) {
  if (isParts(result)) return result;
  try {
    return JSON.stringify(result) ?? 'null';
  } catch (error) {
    throw new Failure('Runtime.MarshalError', `Unable to marshal response: ${error.message}`);
  }
}

module.exports = { adapt, isParts, load, raw, sendParts, RAW };
