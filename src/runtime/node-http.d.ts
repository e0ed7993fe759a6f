// What memwall uses of node:http; the other built-ins are in node-builtins.d.ts.

declare module "node:http" {
  import type { AnyEvents, Emits } from "node:events";
  import type { Readable, Writable } from "node:stream";

  type Headers = Record<string, string | string[] | undefined>;

  interface Socket extends Emits<AnyEvents> {
    readonly remoteAddress?: string;
    setNoDelay(on?: boolean): this;
    setTimeout(milliseconds: number): this;
    destroy(): this;
  }

  interface IncomingMessage extends Readable {
    readonly method?: string;
    readonly url?: string;
    readonly headers: Headers;
    readonly statusCode?: number;
    readonly complete: boolean;
    readonly socket: Socket;
  }

  interface ServerResponse extends Writable {
    statusCode: number;
    readonly headersSent: boolean;
    readonly writableFinished: boolean;
    readonly socket: Socket | null;
    setHeader(name: string, value: string | number | readonly string[]): this;
    writeHead(status: number, headers?: Record<string, string | number>): this;
    flushHeaders(): void;
    writeContinue(): void;
  }

  interface ServerEvents {
    request: [request: IncomingMessage, response: ServerResponse];
    /** A client that sent "Expect: 100-continue"; with a listener there is no `request` for it. */
    checkContinue: [request: IncomingMessage, response: ServerResponse];
    error: [error: NodeSystemError];
    clientError: [error: NodeSystemError, socket: Socket & Writable];
    connection: [socket: Socket];
    close: [];
    listening: [];
  }

  interface Server extends Emits<ServerEvents> {
    readonly listening: boolean;
    /** Milliseconds; 0 is none. */
    requestTimeout: number;
    headersTimeout: number;
    keepAliveTimeout: number;
    maxConnections: number;
    listen(port: number, host?: string, done?: () => void): this;
    listen(port: number, host: string, backlog: number, done?: () => void): this;
    address(): { address: string; family: string; port: number } | string | null;
    close(done?: (error?: Error) => void): this;
    closeAllConnections(): void;
    closeIdleConnections(): void;
    unref(): this;
  }

  interface RequestOptions {
    host?: string;
    port?: number;
    path?: string;
    method?: string;
    headers?: Record<string, string | number>;
    signal?: AbortSignal;
    agent?: false;
  }

  export function createServer(handler?: (request: IncomingMessage, response: ServerResponse) => void): Server;
  export function request(options: RequestOptions | string | URL, done?: (response: IncomingMessage) => void): Writable;
}
