import { assert, describe, it, layer, vi } from "@effect/vitest"
import { Array as Arr, Context, Effect, Fiber, Layer, Logger, Queue, Schedule, Scope, Stream } from "effect"
import { Redis } from "effect/persistence"
import * as RedisCluster from "../../src/redis/RedisCluster.ts"
import { type Cluster, describeWithServers, type Server, startCluster } from "./server.ts"

class TestCluster extends Context.Service<TestCluster, Cluster>()("test/TestCluster") {
  static readonly layer = Layer.effect(TestCluster, startCluster())
  static readonly layerPersistent = Layer.effect(TestCluster, startCluster(3, { persistent: true }))
}

// warnings about lost connections are expected
const clientLayer = Layer.unwrap(
  Effect.map(TestCluster, ({ rootNodes }) => RedisCluster.layer({ rootNodes }))
).pipe(Layer.provideMerge(Logger.layer([])))

const build = (options: RedisCluster.Options) =>
  Effect.map(Layer.build(RedisCluster.layer(options)), (context) => Context.get(context, Redis.Redis))

const increment = Redis.script((key: string, by: number) => [key, by], {
  lua: `return redis.call("INCRBY", KEYS[1], ARGV[1])`,
  numberOfKeys: 1
}).withReturnType<number>()

/** Returns one key of each node. */
const keys = Effect.gen(function* () {
  const { nodeOf, nodes } = yield* TestCluster
  const prefix = crypto.randomUUID()
  const owned = yield* Effect.forEach(Arr.range(1, 100), (n) =>
    Effect.map(nodeOf(`${prefix}-${n}`), (node) => [node, `${prefix}-${n}`] as const)
  )
  return nodes.map((node) => owned.find(([owner]) => owner === node)![1])
})

/**
 * Waits until one subscriber is left, as those of earlier tests may still be disconnecting, and kills its connection.
 * Returns how many were killed. The other nodes are left alone: the subscription may have moved to one of them already.
 */
const killSubscriber = Effect.gen(function* () {
  const { nodes } = yield* TestCluster
  const lists = yield* Effect.repeat(
    Effect.forEach(nodes, (node) => node.command("CLIENT", "LIST", "TYPE", "pubsub")),
    {
      schedule: Schedule.spaced("20 millis"),
      until: (lists) => lists.flatMap((list) => String(list).match(/^id=/gm) ?? []).length === 1
    }
  )
  const node = nodes[lists.findIndex((list) => /^id=/m.test(String(list)))]!
  return Number(yield* node.command("CLIENT", "KILL", "TYPE", "pubsub"))
})

const subscribers = (node: Server, channel: string) =>
  Effect.map(node.command("PUBSUB", "NUMSUB", channel), (reply) => Number((reply as Array<unknown>)[1]))

/** Publishes at a node until a message arrives, as nothing shows when a subscription is restored. */
const publishUntilReceived = (
  node: Server,
  channel: string,
  queue: Queue.Dequeue<Redis.RedisMessage, Redis.RedisError>
) =>
  Effect.gen(function* () {
    const received = yield* Effect.forkChild(Queue.take(queue))
    yield* Effect.repeat(node.command("PUBLISH", channel, "again"), {
      schedule: Schedule.spaced("20 millis"),
      until: () => received.pollUnsafe() !== undefined
    })
    return yield* Fiber.join(received)
  })

describeWithServers("RedisCluster", () => {
  layer(Layer.provideMerge(clientLayer, TestCluster.layer), { excludeTestServices: true })(
    "a cluster",
    (it) => {
      it.effect("writes and reads keys of all nodes", () =>
        Effect.gen(function* () {
          const redis = yield* Redis.Redis
          for (const key of yield* keys) {
            assert.strictEqual(yield* redis.send("SET", key, `value of ${key}`), "OK")
            assert.strictEqual(yield* redis.send("GET", key), `value of ${key}`)
          }
        })
      )

      it.effect("routes commands whose key is not the first argument", () =>
        Effect.gen(function* () {
          const redis = yield* Redis.Redis
          for (const key of yield* keys) {
            yield* redis.send("XGROUP", "CREATE", key, "group", "0", "MKSTREAM")
            yield* redis.send("XADD", key, "*", "field", "value")
            const read = yield* redis.send("XREADGROUP", "GROUP", "group", "me", "STREAMS", key, ">")
            assert.include(JSON.stringify(read), "value")
            assert.strictEqual(yield* redis.send("OBJECT", "ENCODING", key), "stream")
            const type = yield* redis.send("EVAL", `return redis.call("TYPE", KEYS[1]).ok`, "1", key)
            assert.strictEqual(type, "stream")
            assert.isNull(yield* redis.send("LMPOP", "1", `list-{${key}}`, "LEFT"))
          }
        })
      )

      it.effect("answers commands without a key", () =>
        Effect.gen(function* () {
          const redis = yield* Redis.Redis
          assert.strictEqual(yield* redis.send("PING"), "PONG")
          assert.include(yield* redis.send<string>("INFO", "server"), "redis_version")
          assert.strictEqual(yield* redis.send("EVAL", "return 7", "0"), 7)
        })
      )

      it.effect("fails with a RedisError where a node answers with an error", () =>
        Effect.gen(function* () {
          const redis = yield* Redis.Redis
          const [key] = yield* keys
          yield* redis.send("SET", key!, "text")
          const error = yield* Effect.flip(redis.send("INCR", key!))
          assert.instanceOf(error, Redis.RedisError)
          assert.include(String(error.cause), "not an integer")
        })
      )

      it.effect("runs a script for keys of all nodes", () =>
        Effect.gen(function* () {
          const redis = yield* Redis.Redis
          const counts = yield* Effect.forEach(yield* keys, (key) => redis.eval(increment)(key, 2))
          assert.deepStrictEqual(counts, [2, 2, 2])
        })
      )

      it.effect("loads a script again that a node has lost", () =>
        Effect.gen(function* () {
          const redis = yield* Redis.Redis
          const { nodes } = yield* TestCluster
          const three = yield* keys
          yield* Effect.forEach(three, (key) => redis.eval(increment)(key, 1))
          yield* nodes[1]!.command("SCRIPT", "FLUSH")
          const counts = yield* Effect.forEach(three, (key) => redis.eval(increment)(key, 1))
          assert.deepStrictEqual(counts, [2, 2, 2])
        })
      )

      it.effect("delivers messages that were published at any node", () =>
        Effect.gen(function* () {
          const redis = yield* Redis.Redis
          const { nodes } = yield* TestCluster
          const queue = yield* redis.subscribe("news")
          for (const [index, node] of nodes.entries()) yield* node.command("PUBLISH", "news", `${index}`)
          yield* redis.send("PUBLISH", "news", "by the client")
          const messages = yield* Stream.runCollect(Stream.take(Stream.fromQueue(queue), 4))
          assert.sameMembers(
            messages.map(({ channel, message }) => `${channel}: ${message}`),
            ["news: 0", "news: 1", "news: 2", "news: by the client"]
          )
        })
      )

      it.effect("ends a subscription with its scope", () =>
        Effect.gen(function* () {
          const redis = yield* Redis.Redis
          const { nodes } = yield* TestCluster
          const count = Effect.map(
            Effect.forEach(nodes, (node) => subscribers(node, "brief")),
            (counts) => counts.reduce((sum, count) => sum + count, 0)
          )
          yield* Effect.scoped(
            Effect.gen(function* () {
              yield* redis.subscribe("brief")
              assert.strictEqual(yield* count, 1)
            })
          )
          yield* Effect.repeat(count, { schedule: Schedule.spaced("10 millis"), until: (left) => left === 0 })
        })
      )

      it.effect("restores a subscription whose connection was killed", () =>
        Effect.gen(function* () {
          const redis = yield* Redis.Redis
          const { nodes } = yield* TestCluster
          const queue = yield* redis.subscribe("survivor")
          for (let kill = 0; kill < 2; kill++) {
            assert.strictEqual(yield* killSubscriber, 1)
            const { message } = yield* publishUntilReceived(nodes[0]!, "survivor", queue)
            assert.strictEqual(message, "again")
          }
        })
      )

      it.effect("a blocking command on a reserved connection blocks no other caller", () =>
        Effect.gen(function* () {
          const redis = yield* Redis.Redis
          for (const key of yield* keys) {
            const popped = yield* Effect.scoped(
              Effect.gen(function* () {
                const connection = yield* redis.reserve
                const popping = yield* Effect.forkChild(connection.send("BLPOP", key, "0"))
                yield* redis.send("RPUSH", key, "value")
                return yield* Fiber.join(popping)
              })
            )
            assert.deepStrictEqual(popped, [key, "value"])
          }
        })
      )

      it.effect("runs scripts on a reserved connection", () =>
        Effect.gen(function* () {
          const redis = yield* Redis.Redis
          const connection = yield* redis.reserve
          const counts = yield* Effect.forEach(yield* keys, (key) => connection.eval(increment)(key, 3))
          assert.deepStrictEqual(counts, [3, 3, 3])
        })
      )

      it.effect("closing the layer fails running commands, and queues of subscriptions", () =>
        Effect.gen(function* () {
          const { rootNodes } = yield* TestCluster
          const [key] = yield* keys
          const outer = yield* Effect.scope
          const [queue, blocked] = yield* Effect.scoped(
            Effect.gen(function* () {
              const redis = yield* build({ rootNodes })
              const blocked = yield* Effect.forkIn(redis.send("BLPOP", key!, "0"), outer)
              return [yield* Scope.provide(redis.subscribe("late"), outer), blocked] as const
            })
          )
          assert.instanceOf(yield* Effect.flip(Queue.take(queue)), Redis.RedisError)
          assert.instanceOf(yield* Effect.flip(Fiber.join(blocked)), Redis.RedisError)
        })
      )

      it.effect("a layer that is interrupted while connecting leaves no connection", () =>
        Effect.gen(function* () {
          const { nodes, rootNodes } = yield* TestCluster
          const connections = Effect.map(
            Effect.forEach(nodes, (node) => node.command("CLIENT", "LIST")),
            (lists) => lists.join("").trim().split("\n").length
          )
          const before = yield* connections
          for (const millis of Arr.range(0, 15)) {
            const building = yield* Effect.forkChild(Effect.scoped(build({ rootNodes })))
            yield* Effect.sleep(millis)
            yield* Fiber.interrupt(building)
          }
          yield* Effect.repeat(connections, {
            schedule: Schedule.spaced("20 millis"),
            until: (now) => now <= before
          })
        })
      )
    }
  )

  layer(Layer.provideMerge(clientLayer, TestCluster.layerPersistent), { excludeTestServices: true })(
    "a cluster whose nodes stop and start",
    (it) => {
      it.effect("uses a node again after its restart", () =>
        Effect.gen(function* () {
          const redis = yield* Redis.Redis
          const { nodes, ready } = yield* TestCluster
          const three = yield* keys
          yield* Effect.forEach(three, (key) => redis.eval(increment)(key, 1))
          yield* nodes[1]!.kill
          yield* nodes[1]!.start
          yield* ready
          const counts = yield* Effect.forEach(three, (key) => redis.eval(increment)(key, 1))
          assert.deepStrictEqual(counts, [2, 2, 2])
        })
      )

      it.effect("while a node is down, the others run scripts, and building a layer fails", () =>
        Effect.gen(function* () {
          const redis = yield* Redis.Redis
          const { nodes, ready, rootNodes } = yield* TestCluster
          const [key] = yield* keys
          yield* nodes[2]!.kill
          const fresh = Redis.script((key: string) => [key], {
            lua: `return redis.call("INCR", KEYS[1]) -- ${key}`,
            numberOfKeys: 1
          }).withReturnType<number>()
          assert.strictEqual(yield* redis.eval(fresh)(key!), 1)
          for (const roots of [rootNodes, rootNodes.slice(0, 1)]) {
            const error = yield* Effect.flip(Effect.scoped(build({ rootNodes: roots })))
            assert.include(String(error.cause), `ECONNREFUSED 127.0.0.1:${nodes[2]!.port}`)
          }
          yield* nodes[2]!.start
          yield* ready
        })
      )

      it.effect("a subscription whose node is down moves to another node", () =>
        Effect.gen(function* () {
          const redis = yield* Redis.Redis
          const { nodes, ready } = yield* TestCluster
          const queue = yield* redis.subscribe("mover")
          const counts = yield* Effect.forEach(nodes, (node) => subscribers(node, "mover"))
          const listened = nodes[counts.indexOf(1)]!
          yield* listened.kill
          const other = nodes.find((node) => node !== listened)!
          assert.strictEqual((yield* publishUntilReceived(other, "mover", queue)).message, "again")
          yield* listened.start
          yield* ready
        })
      )

      it.effect("sends a command and its script to the new node of a moved slot", () =>
        Effect.gen(function* () {
          const redis = yield* Redis.Redis
          const { nodes } = yield* TestCluster
          const [key] = yield* keys
          const slot = String(yield* nodes[0]!.command("CLUSTER", "KEYSLOT", key!))
          yield* redis.eval(increment)(key!, 1)
          yield* redis.send("DEL", key!)
          const id = String(yield* nodes[1]!.command("CLUSTER", "MYID"))
          yield* nodes[1]!.command("SCRIPT", "FLUSH")
          for (const node of [nodes[1]!, nodes[0]!, nodes[2]!])
            yield* node.command("CLUSTER", "SETSLOT", slot, "NODE", id)
          assert.strictEqual(yield* redis.eval(increment)(key!, 5), 5)
          assert.strictEqual(yield* nodes[1]!.command("GET", key!), "5")
        })
      )
    }
  )

  it.live("authenticates with the password in `defaults`", () =>
    Effect.gen(function* () {
      const { rootNodes } = yield* startCluster(1, { password: "secret word" })
      const redis = yield* build({ rootNodes, defaults: { password: "secret word" } })
      assert.strictEqual(yield* redis.send("SET", "key", "value"), "OK")
      const error = yield* Effect.flip(build({ rootNodes }))
      assert.include(String(error.cause), "NOAUTH")
    })
  )
})

describe("RedisCluster without a cluster", () => {
  it.live("fails with a RedisError if no root node answers", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(build({ rootNodes: [{ url: "redis://127.0.0.1:1" }] }))
      assert.instanceOf(error, Redis.RedisError)
      assert.include(String(error.cause), "ECONNREFUSED 127.0.0.1:1")
    })
  )

  it.live("without the package `redis`, the error names what to install", () =>
    Effect.gen(function* () {
      vi.doMock("redis", () => Promise.reject(new Error("Cannot find package")))
      yield* Effect.addFinalizer(() => Effect.sync(() => vi.doUnmock("redis")))
      const error = yield* Effect.flip(build({ rootNodes: [] }))
      assert.include(String(error.cause), "npm install redis")
    })
  )
})
