import { spawnSync } from "node:child_process"
import { existsSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import type { ChannelModel, ConfirmChannel, Message } from "amqplib"
import { Deferred, Duration, Effect, Exit, Fiber, Scope } from "effect"
import type { ServerError } from "../support/ownServers.ts"
import { describeWithOwnRabbit, type OwnServer, startServer, testWithServer as test } from "./ownServer.ts"
import { channelOf, openChannel, openConnection, withChannel } from "./server.ts"

const QUEUE = "quorum"
const QUORUM = { durable: true, arguments: { "x-queue-type": "quorum" } }

/** Publishes persistent messages, and waits for their confirms. */
const publish = (channel: ConfirmChannel, ...contents: ReadonlyArray<string>) =>
  Effect.promise(() => {
    for (const content of contents)
      channel.sendToQueue(QUEUE, Buffer.from(content), { persistent: true, mandatory: true })
    return channel.waitForConfirms()
  })

const declareQueue = (channel: ConfirmChannel) => Effect.promise(() => channel.assertQueue(QUEUE, QUORUM))

/** Consumes one message of the queue, and returns its text. */
const take = (url: string) =>
  withChannel(url, async (channel) => {
    const message = await channel.get(QUEUE, { noAck: true })
    return message === false ? undefined : message.content.toString()
  })

/** Waits for an event, and returns its argument. */
const nextEvent = (emitter: ChannelModel | ConfirmChannel, event: string): Effect.Effect<unknown> =>
  Effect.callback((resume) => {
    emitter.once(event, (value: unknown) => resume(Effect.succeed(value)))
  })

/** Subscribes to an event at once, and returns a fiber that waits for it. */
const subscribe = (emitter: ChannelModel | ConfirmChannel, event: string) =>
  Effect.forkChild(nextEvent(emitter, event), { startImmediately: true })

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/** Evaluates an Erlang expression on the server. */
const evaluate = (server: OwnServer, expression: string) =>
  Effect.map(server.evaluate(`${expression}.`), (output) => output.trim().replace(/^"(.*)"$/, "$1"))

const exists = (pid: number) =>
  Effect.isSuccess(Effect.try({ try: () => process.kill(pid, 0), catch: () => "gone" }))

describeWithOwnRabbit("dedicated RabbitMQ servers", () => {
  describe.concurrent("restarts", () => {
    const testRestart = (how: string, end: (server: OwnServer) => Effect.Effect<void, ServerError>) =>
      test(`a server that is ${how} and started again keeps confirmed messages`, {}, (server) =>
        Effect.gen(function* () {
          const connection = yield* openConnection(server.url)
          const channel = yield* channelOf(connection)
          yield* declareQueue(channel)
          yield* publish(channel, "välue", "another")
          const closed = yield* subscribe(connection, "close")
          yield* end(server)
          yield* Fiber.join(closed)
          assert.match((yield* Effect.flip(take(server.url))).message, /ECONNREFUSED/)
          yield* server.start
          assert.strictEqual(yield* take(server.url), "välue")
          yield* server.start
          assert.strictEqual(yield* take(server.url), "another")
          assert.isUndefined(yield* take(server.url))
        })
      )
    testRestart("killed", (server) => Effect.andThen(server.settle, server.kill))
    testRestart("stopped", (server) => server.stop)
    testRestart("frozen, stopped", (server) => Effect.andThen(server.freeze, server.stop))
  })

  test("a memory alarm blocks publishers until it is cleared", {}, (server) =>
    Effect.gen(function* () {
      const connection = yield* openConnection(server.url)
      const channel = yield* channelOf(connection)
      yield* declareQueue(channel)
      yield* server.alarm
      const blocked = yield* subscribe(connection, "blocked")
      const unblocked = yield* subscribe(connection, "unblocked")
      const confirmed = yield* Effect.forkChild(publish(channel, "one"), { startImmediately: true })
      assert.strictEqual(yield* Fiber.join(blocked), "low on memory")
      assert.isUndefined(confirmed.pollUnsafe())
      yield* server.calm
      yield* Fiber.join(unblocked)
      yield* Fiber.join(confirmed)
      assert.strictEqual(yield* take(server.url), "one")
    })
  )

  test(
    "the server closes the channel of a consumer that holds a message for longer than the timeout",
    { consumerTimeoutMillis: 1_500 },
    (server) =>
      Effect.gen(function* () {
        const channel = yield* openChannel(server.url)
        yield* declareQueue(channel)
        yield* publish(channel, "one")
        const delivered = yield* Deferred.make<Message | null>()
        const error = yield* subscribe(channel, "error")
        const closed = yield* subscribe(channel, "close")
        yield* Effect.promise(() =>
          channel.consume(QUEUE, (message) => Deferred.doneUnsafe(delivered, Effect.succeed(message)))
        )
        assert.strictEqual((yield* Deferred.await(delivered))?.content.toString(), "one")
        const [elapsed] = yield* Effect.timed(Fiber.join(closed))
        assert.isBelow(Duration.toMillis(elapsed), 10_000)
        assert.match(messageOf(yield* Fiber.join(error)), /PRECONDITION_FAILED.*timed out/)
        // the message is delivered again
        assert.strictEqual(yield* take(server.url), "one")
      })
  )

  test("a frozen server answers once it is thawed", {}, (server) =>
    Effect.gen(function* () {
      const channel = yield* openChannel(server.url)
      yield* declareQueue(channel)
      yield* server.freeze
      const confirmed = yield* Effect.forkChild(publish(channel, "one"), { startImmediately: true })
      const other = yield* Effect.forkChild(take(server.url), { startImmediately: true })
      yield* Effect.sleep("200 millis")
      assert.isUndefined(confirmed.pollUnsafe())
      assert.isUndefined(other.pollUnsafe())
      yield* server.thaw
      yield* Fiber.join(confirmed)
      yield* Fiber.join(other)
    })
  )

  test(
    "the server closes connections with the given reason, and applies lines of the configuration",
    {
      config: ["heartbeat = 7", "channel_max = 3"]
    },
    (server) =>
      Effect.gen(function* () {
        const connection = yield* openConnection(server.url)
        for (let n = 0; n < 3; n++) yield* channelOf(connection)
        assert.match((yield* Effect.flip(channelOf(connection))).message, /No channels left/)
        assert.strictEqual(yield* evaluate(server, "application:get_env(rabbit, heartbeat)"), "{ok,7}")
        const closed = yield* subscribe(connection, "close")
        yield* server.closeConnections("the moon is full")
        assert.match(messageOf(yield* Fiber.join(closed)), /CONNECTION_FORCED.*the moon is full/)
        yield* server.restart
        yield* openChannel(server.url)
      })
  )

  it.live("a start with an invalid configuration fails with the server's message", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(startServer({ config: ["no_such_option = 1"] }))
      assert.include(error.message, "no_such_option")
    })
  )

  it.live("closing the scope removes processes and directory, even of a frozen server", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const server = yield* Scope.provide(startServer(), scope)
      const pid = Number(yield* evaluate(server, "os:getpid()"))
      const directory = yield* evaluate(server, 'os:getenv("HOME")')
      const name = yield* evaluate(server, "lists:takewhile(fun(C) -> C =/= $@ end, atom_to_list(node()))")
      assert.isTrue(yield* exists(pid))
      assert.isTrue(existsSync(directory))
      yield* server.freeze
      yield* Scope.close(scope, Exit.void)
      assert.isFalse(yield* exists(pid))
      assert.isFalse(existsSync(directory))
      const left = (program: string, ...args: ReadonlyArray<string>) =>
        spawnSync(program, args, { encoding: "utf8" }).stdout.includes(name)
      assert.isFalse(left("ps", "-A", "-o", "args="))
      assert.isFalse(left("epmd", "-names"))
    })
  )
})
