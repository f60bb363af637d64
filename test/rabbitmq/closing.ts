/** A way to a server that can be cut. */
import { createConnection, createServer, type Socket } from "node:net"
import { Effect, type Scope } from "effect"

/** Passes on what is sent. */
export interface Cutter {
  /** Leads to the server. */
  readonly url: string
  /** Cuts all connections; so many of those that follow are closed in the very moment they are ready. */
  readonly cut: (closed: number) => Effect.Effect<void>
}

/** `confirm.select-ok`: the last that a client waits for. */
const READY = Buffer.from([0, 85, 0, 11])

const TEXT = Buffer.from("CONNECTION_FORCED - cut")

/** The frame of `connection.close`. */
const close = (() => {
  const method = Buffer.concat([
    Buffer.from([0, 10, 0, 50, 320 >> 8, 320 & 255, TEXT.length]),
    TEXT,
    Buffer.from([0, 0, 0, 0])
  ])
  const head = Buffer.alloc(7)
  head.writeUInt8(1, 0)
  head.writeUInt32BE(method.length, 3)
  return Buffer.concat([head, method, Buffer.from([0xce])])
})()

/** A way to the server of that URL, until the scope closes. */
export const makeCutter = (to: string): Effect.Effect<Cutter, never, Scope.Scope> =>
  Effect.gen(function* () {
    const { hostname, port } = new URL(to)
    const sockets = new Set<Socket>()
    let closed = 0
    const server = createServer((client) => {
      const there = createConnection({ host: hostname, port: Number(port) })
      const drop = () => {
        client.destroy()
        there.destroy()
      }
      for (const socket of [client, there]) {
        sockets.add(socket)
        socket.on("error", drop)
        socket.on("close", () => {
          sockets.delete(socket)
          drop()
        })
      }
      client.pipe(there)
      there.on("data", (chunk: Buffer) => {
        if (closed === 0 || !chunk.includes(READY)) return void client.write(chunk)
        closed--
        // in one piece, as from a server that is stopped just then
        client.write(Buffer.concat([chunk, close]))
      })
    })
    yield* Effect.acquireRelease(
      Effect.callback<void>((resume) => {
        server.listen(0, "127.0.0.1", () => resume(Effect.void))
      }),
      () =>
        Effect.sync(() => {
          server.close()
          for (const socket of sockets) socket.destroy()
        })
    )
    const address = server.address()
    const url = new URL(to)
    if (address !== null && typeof address === "object") url.port = String(address.port)
    return {
      url: url.href,
      cut: (some) =>
        Effect.sync(() => {
          closed = some
          for (const socket of sockets) socket.destroy()
        })
    }
  })
