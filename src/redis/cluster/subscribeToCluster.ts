/** Subscriptions at a cluster that move to another node when their connection is lost. */
import { Deferred, Effect, Fiber, Schedule } from "effect"
import type { Redis } from "effect/persistence"
import { makeOnceAMinute } from "../../internal/driver/onceAMinute.ts"
import { destroy } from "./connectCluster.ts"
import { anyMaster, callClient, type ClusterClient, toRedisError } from "./routeCommand.ts"

type OnMessage = (message: Redis.RedisMessage) => void

/** A node that is frozen accepts connections, while another one may answer. */
const SUBSCRIBE_TIMEOUT = "5 seconds"

const backoff = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("2 seconds")]).pipe(
  Schedule.jittered
)

/** Subscribes at any master. Returns what completes, with the cause, when the connection is lost. */
const subscribeToNode = Effect.fnUntraced(function* (
  client: ClusterClient,
  channel: string,
  onMessage: OnMessage
) {
  const node = yield* callClient(async () => client.nodeClient(anyMaster(client)))
  const lost = yield* Deferred.make<unknown>()
  let isConnected = false
  const subscriber = yield* Effect.acquireRelease(
    Effect.sync(() => node.duplicate({ socket: { ...node.options.socket, reconnectStrategy: false } })),
    (subscriber) =>
      Effect.sync(() => {
        // a connection that is being made cannot be ended
        if (isConnected) destroy(subscriber)
        else subscriber.on("connect", () => destroy(subscriber))
      })
  )
  subscriber.on("error", (cause) => Deferred.doneUnsafe(lost, Effect.succeed(cause)))
  subscriber.once("connect", () => (isConnected = true))
  yield* callClient(async () => {
    await subscriber.connect()
    await subscriber.subscribe(channel, (message, channel) => onMessage({ channel, message }))
  }).pipe(
    Effect.timeoutOrElse({
      duration: SUBSCRIBE_TIMEOUT,
      orElse: () => Effect.fail(toRedisError(new Error("A node does not answer a subscriber")))
    })
  )
  return lost
})

/**
 * Returns the `subscribe` of the `Redis` service over a cluster client. A lost connection is replaced by one to any
 * master that answers. (The client's own subscriptions stay with one node for as long as the cluster lists it, and end
 * silently if its connection ends for good.)
 */
export const subscribeWith = (client: ClusterClient, closed: Deferred.Deferred<never, Redis.RedisError>) =>
  Effect.fnUntraced(function* (channel: string, onMessage: OnMessage) {
    const started = yield* Deferred.make<void, Redis.RedisError>()
    const lossIsNews = makeOnceAMinute()
    const failureIsNews = makeOnceAMinute()
    let wasSubscribed = false
    const untilLost = Effect.scoped(
      Effect.gen(function* () {
        const lost = yield* subscribeToNode(client, channel, onMessage)
        wasSubscribed = true
        yield* Deferred.succeed(started, undefined)
        yield* ((yield* lossIsNews) ? Effect.logWarning : Effect.logDebug)(
          "Lost the connection of a subscription to the Redis cluster; subscribing again",
          yield* Deferred.await(lost)
        )
      })
    )
    const fiber = yield* untilLost.pipe(
      Effect.tapError(({ cause }) =>
        wasSubscribed
          ? Effect.flatMap(failureIsNews, (isNews) =>
              (isNews ? Effect.logWarning : Effect.logDebug)(
                "Failed to subscribe to the Redis cluster again; trying once more",
                cause
              )
            )
          : Effect.void
      ),
      Effect.retry({ schedule: backoff, while: () => wasSubscribed }),
      Effect.forever,
      Effect.raceFirst(Deferred.await(closed)),
      Effect.onError((cause) => Deferred.failCause(started, cause)),
      Effect.forkScoped
    )
    yield* Deferred.await(started)
    return Fiber.join(fiber)
  })
