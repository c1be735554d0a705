/** What a handler learns of its invocation; names follow the context of AWS Lambda. */
export interface Context {
  readonly functionName: string;
  readonly functionVersion: string;
  readonly invokedFunctionArn: string;
  readonly memoryLimitInMB: string;
  readonly logGroupName: string;
  readonly logStreamName: string;
  /** 32 hexadecimal digits, as in the answer's `x-request-id`. */
  readonly requestId: string;
  /** The same id in the form of a UUID. */
  readonly awsRequestId: string;
  readonly requestContentType: string;
  readonly traceParent: string;
  readonly receivedUnixMs: number;
  /** Whether the caller is gone. */
  readonly cancelled: boolean;
  /** Fires when the caller is gone. */
  readonly signal: AbortSignal;
  /** The response's content type; null stands for the default. */
  contentType: string | null;
  callbackWaitsForEmptyEventLoop: boolean;
  getRemainingTimeInMillis(): number;
}

/** JSON in, JSON out. An empty body is null. */
export type Handler<Event = unknown, Result = unknown> = (event: Event, context: Context) => Result | Promise<Result>;

/** Bytes in, bytes out. */
export type RawHandler = (body: Buffer, context: Context) => Bytes | Promise<Bytes>;
type Bytes = Uint8Array | ArrayBuffer | ArrayBufferView | null | undefined | void;

/** Marks a handler as taking bytes and returning bytes. */
export function raw<H extends RawHandler>(handler: H): H;

declare global {
  /** There in every sandbox, without an import. */
  const vilya: { raw: typeof raw };
}
