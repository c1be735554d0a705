// What was thrown as the error record: `{"errorType", "errorMessage", "stackTrace"}`.
//
// Invariant: whatever was thrown, `report` returns JSON of at most `limit` bytes. Knows nothing of rings.
'use strict';

const MESSAGE_CHARACTERS = 16 * 1024;
const LINE_CHARACTERS = 1024;
const FRAMES = 64;
/** What is always left of a text when the whole record does not fit. */
const SHORT_CHARACTERS = 80;

/** An error whose type is named by the runtime; its cause, if any, has the stack. */
class Failure extends Error {
  constructor(errorType, message, cause) {
    super(message, cause === undefined ? undefined : { cause });
    this.errorType = errorType;
  }
}

/** Writes what was thrown to the function's log, and returns its error record. */
function report(thrown, limit) {
  const { type, message, lines } = describe(thrown);
  try {
    process.stderr.write([`[ERROR] ${type}: ${message}`, ...lines].join('\n') + '\n');
  } catch {
    // The handler closed it; the record still says everything.
  }
  return record(type, message, lines, limit);
}

function describe(thrown) {
  try {
    if (thrown instanceof Failure) {
      return { type: thrown.errorType, message: cut(thrown.message, MESSAGE_CHARACTERS), lines: stack(thrown.cause) };
    }
    if (thrown instanceof Error || (typeof thrown === 'object' && thrown !== null && 'message' in thrown)) {
      const named = typeof thrown.name === 'string' && thrown.name !== 'Error' ? thrown.name : undefined;
      const type = named ?? thrown.constructor?.name ?? 'Error';
      return { type: cut(String(type), LINE_CHARACTERS), message: cut(String(thrown.message), MESSAGE_CHARACTERS), lines: stack(thrown) };
    }
    return { type: typeof thrown, message: cut(String(thrown), MESSAGE_CHARACTERS), lines: [] };
  } catch {
    // The function's own getters and proxies.
    return { type: 'Error', message: '<what was thrown cannot be read>', lines: [] };
  }
}

/** The lines of a stack that name places, without the runtime's own. */
function stack(error) {
  const text = error?.stack;
  if (typeof text !== 'string') return [];
  const places = text.split('\n').filter((line) => /^\s+at /.test(line) && !line.includes(__dirname));
  return places.slice(0, FRAMES).map((line) => cut(line.trim(), LINE_CHARACTERS));
}

/** Encodes the record, shedding detail until it fits. */
function record(type, message, lines, limit) {
  for (const kept of [lines, lines.slice(0, 4), []]) {
    const encoded = encode(type, message, kept);
    if (Buffer.byteLength(encoded) <= limit) return encoded;
  }
  return encode(cut(type, SHORT_CHARACTERS), cut(message, SHORT_CHARACTERS), []);
}

function encode(errorType, errorMessage, stackTrace) {
  return JSON.stringify({ errorType, errorMessage, stackTrace });
}

function cut(text, characters) {
  return text.length <= characters ? text : `${text.slice(0, characters - 1)}\u2026`;
}

module.exports = { Failure, report, record };
