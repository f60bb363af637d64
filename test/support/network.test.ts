import { connect, createServer, type Socket } from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, type Scope } from "effect"
import { makeNetwork, type Network } from "./network.ts"
import { eventually } from "./storeFixture.ts"

/** Starts a server that echoes every byte, and returns its URL. */
const makeEcho = Effect.map(
  Effect.acquireRelease(
    Effect.callback<{ readonly port: number; readonly close: () => void }>((resume) => {
      const sockets = new Set<Socket>()
      const server = createServer((socket) => {
        sockets.add(socket)
        socket.on("error", () => {})
        socket.pipe(socket)
      })
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        const port = typeof address === "object" && address !== null ? address.port : 0
        const close = () => {
          server.close()
          for (const socket of sockets) socket.destroy()
        }
        resume(Effect.succeed({ port, close }))
      })
    }),
    ({ close }) => Effect.sync(close)
  ),
  ({ port }) => `tcp://127.0.0.1:${port}`
)

/** Connects a client, which records the text that it receives. */
const makeClient = (url: string) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => connect(Number(new URL(url).port), "127.0.0.1")),
      (socket) => Effect.sync(() => socket.destroy())
    ),
    (socket) => {
      let received = ""
      let closed = false
      socket.on("data", (chunk) => (received += chunk.toString()))
      socket.on("error", () => {})
      socket.on("close", () => (closed = true))
      return {
        send: (text: string) => Effect.sync(() => socket.write(text)),
        received: () => received,
        isClosed: () => closed,
        receives: (text: string) => eventually(Effect.sync(() => received === text)),
        closes: eventually(Effect.sync(() => closed))
      }
    }
  )

type Client = Effect.Success<ReturnType<typeof makeClient>>

const test = (
  name: string,
  body: (
    network: Network,
    client: Client,
    another: Effect.Effect<Client, never, Scope.Scope>
  ) => Effect.Effect<void, unknown, Scope.Scope>
) =>
  it.live(name, () =>
    Effect.gen(function* () {
      const network = yield* makeNetwork(yield* makeEcho)
      const another = makeClient(network.url)
      const client = yield* another
      yield* client.send("hello")
      yield* client.receives("hello")
      yield* Effect.timeout(body(network, client, another), "10 seconds")
    })
  )

/** Waits long enough for all bytes that are not held back to arrive. */
const settleTime = Effect.sleep("150 millis")

describe("Network", () => {
  test("cut closes the open connections and accepts new ones", (network, client, another) =>
    Effect.gen(function* () {
      yield* network.cut()
      yield* client.closes
      const next = yield* another
      yield* next.send("again")
      yield* next.receives("again")
      assert.strictEqual(network.accepted(), 2)
    }))

  test("cut(n) closes the next n connections as soon as they are ready", (network, _, another) =>
    Effect.gen(function* () {
      yield* network.cut(1)
      const next = yield* another
      yield* next.send("again")
      yield* next.closes
      assert.strictEqual(next.received(), "")
      const last = yield* another
      yield* last.send("at last")
      yield* last.receives("at last")
    }))

  test("refuse refuses connections until heal, on the same port", (network, client, another) =>
    Effect.gen(function* () {
      yield* network.refuse
      yield* client.closes
      yield* (yield* another).closes
      yield* network.heal
      const next = yield* another
      yield* next.send("again")
      yield* next.receives("again")
      assert.strictEqual(network.accepted(), 2)
    }))

  test("halfOpen holds back all bytes until heal", (network, client, another) =>
    Effect.gen(function* () {
      yield* network.halfOpen
      const next = yield* another
      yield* client.send(", you")
      yield* next.send("me")
      yield* settleTime
      assert.strictEqual(client.received() + next.received(), "hello")
      assert.isFalse(client.isClosed() || next.isClosed())
      yield* network.heal
      yield* client.receives("hello, you")
      yield* next.receives("me")
    }))

  test("silence mutes the open connections until they are cut", (network, client, another) =>
    Effect.gen(function* () {
      yield* network.silence
      yield* client.send(", you")
      const next = yield* another
      yield* next.send("me")
      yield* next.receives("me")
      yield* network.heal
      yield* settleTime
      assert.strictEqual(client.received(), "hello")
      assert.isFalse(client.isClosed())
      yield* network.cut()
      yield* client.closes
    }))

  test("latency delays both directions", (network, client) =>
    Effect.gen(function* () {
      yield* network.latency(100)
      yield* client.send(", you")
      const [duration] = yield* Effect.timed(client.receives("hello, you"))
      assert.isAtLeast(Duration.toMillis(duration), 190)
    }))

  test("drip limits the bytes per tick", (network, client) =>
    Effect.gen(function* () {
      yield* network.drip(10)
      const long = "x".repeat(300)
      yield* client.send(long)
      const [duration] = yield* Effect.timed(client.receives(`hello${long}`))
      assert.isAtLeast(Duration.toMillis(duration), 250)
    }))

  test("storm cuts connections until heal", (network, client, another) =>
    Effect.gen(function* () {
      yield* network.storm
      yield* client.closes
      for (let n = 0; n < 5; n++) yield* (yield* another).closes
      yield* network.heal
      const next = yield* another
      yield* next.send("again")
      yield* next.receives("again")
      yield* Effect.sleep("600 millis")
      assert.isFalse(next.isClosed())
    }))

  test("closing a client's connection closes the connection to the server", (network, _, another) =>
    Effect.gen(function* () {
      const before = network.accepted()
      yield* Effect.scoped(
        Effect.gen(function* () {
          const next = yield* another
          yield* next.send("bye")
          yield* next.receives("bye")
        })
      )
      assert.strictEqual(network.accepted(), before + 1)
    }))
})
