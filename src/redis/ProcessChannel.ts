/**
 * The channel of a process: the one subscription over which the store notifies it.
 *
 * The subscription is open while anything in the process is subscribed to the channel. A client that lost its connection
 * reconnects in silence, and what was published meanwhile is lost; so the process pings itself over the channel. A ping
 * that does not come back means a dead subscription, which is replaced. One that comes back says whether a message
 * reached no subscriber, or the server has no mark of this process. Either way the subscribers resync.
 */
import { Duration, Effect, Exit, Fiber, Queue, RcRef, Schema, Scope } from "effect"
import type * as Redis from "effect/persistence/Redis"
import type { Outages } from "../internal/driver/Outages.ts"
import { parse } from "../internal/json.ts"
import { CallFailed } from "./RedisStoreError.ts"
import type { ScriptRunner } from "./ScriptRunner.ts"
import { ping } from "./scripts/ping.ts"

/** A task that changed, and what the store says of it: see `scripts/lib/subscribers.ts`. */
export interface TaskChange {
  readonly id: string
  readonly known: string
}

/** A message that was handed over: see `scripts/lib/handOver.ts`. */
export interface HandedOverText {
  /** The id under which the claim waited. */
  readonly claimId: string
  /** Counts what was handed over to the claim, from 1. */
  readonly number: number
  /** Whether nothing more is handed over to the claim. */
  readonly isLast: boolean
  /** Milliseconds by the server's clock since the claim. */
  readonly elapsedMillis: number
  readonly queue: string
  readonly member: string
  readonly text: string
}

/** Handles what comes over the channel. */
export interface Subscriber {
  readonly onHandedOver?: (message: HandedOverText) => void
  readonly onHint?: (changes: ReadonlyArray<TaskChange>) => void
  /** There may be something to claim from a queue: now, or after a time. */
  readonly onWake?: (queue: string, afterMillis: number) => void
  /** Any message may have been missed. */
  readonly onResync: () => void
}

/** The channel of this process. */
export interface ProcessChannel {
  /** The name of this process, which is unique and part of the channel's name. */
  readonly process: string
  /** Subscribes until the scope closes. A new subscription begins with a resync. */
  readonly subscribe: (subscriber: Subscriber) => Effect.Effect<void, never, Scope.Scope>
}

const Changed = Schema.TupleWithRest(Schema.Tuple([Schema.Literal("changed")]), [Schema.String])
const Ready = Schema.Tuple([Schema.Literal("ready"), Schema.String])
const Due = Schema.Tuple([Schema.Literal("due"), Schema.String, Schema.Number])
const Ping = Schema.Tuple([Schema.Literal("ping"), Schema.String, Schema.Boolean])
const Claimed = Schema.Tuple([
  Schema.Literal("claimed"),
  Schema.String,
  Schema.Number,
  Schema.Boolean,
  Schema.Number,
  Schema.String,
  Schema.String,
  Schema.String
])
const Message = Schema.Union([Changed, Claimed, Ready, Due, Ping])
type Message = typeof Message.Type
const decodeJson = Schema.decodeUnknownExit(Message)

/** `undefined`: the text is not a message of the store. Other clients can publish on the channel. */
const decodeMessage = (text: string): Message | undefined => {
  const json = parse(text)
  if (Exit.isFailure(json)) return undefined
  const decoded = decodeJson(json.value)
  return Exit.isSuccess(decoded) ? decoded.value : undefined
}

const PING_INTERVAL = Duration.seconds(1)
/** Pings without an answer after which a subscription counts as dead. */
const MAX_UNANSWERED_PINGS = 2
/** Every shard is pinged once in that many intervals, so that its mark of this process does not expire. */
const INTERVALS_PER_ROUND = 20
const RESUBSCRIBE_DELAY = Duration.millis(250)

/**
 * Opens a subscription. Where the server is silent, a client may take forever and cannot be interrupted meanwhile, so
 * the call is bounded without it; a subscription that comes too late is closed.
 */
const openSubscription = (redis: Redis.Redis["Service"], { bounded }: ScriptRunner, channel: string) =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    const subscribing = yield* Effect.forkDetach(Scope.provide(redis.subscribe(channel), scope))
    yield* Effect.addFinalizer((exit) => {
      const close = Scope.close(scope, exit)
      return subscribing.pollUnsafe() === undefined
        ? Effect.forkDetach(Effect.andThen(Fiber.interrupt(subscribing), close))
        : close
    })
    return yield* bounded(Fiber.join(subscribing))
  })

/** The ids of tasks, each followed by what is known of it. */
const changesOf = ([, ...texts]: typeof Changed.Type): ReadonlyArray<TaskChange> => {
  const changes: Array<TaskChange> = []
  for (let i = 0; i + 1 < texts.length; i += 2) changes.push({ id: texts[i]!, known: texts[i + 1]! })
  return changes
}

const dispatch = (
  subscribers: ReadonlySet<Subscriber>,
  message: Exclude<Message, typeof Ping.Type>
): void => {
  switch (message[0]) {
    case "changed": {
      const changes = changesOf(message)
      return subscribers.forEach((subscriber) => subscriber.onHint?.(changes))
    }
    case "claimed": {
      const [, claimId, number, isLast, elapsedMillis, queue, member, text] = message
      const handedOver = { claimId, number, isLast, elapsedMillis, queue, member, text }
      return subscribers.forEach((subscriber) => subscriber.onHandedOver?.(handedOver))
    }
    case "ready":
      return subscribers.forEach((subscriber) => subscriber.onWake?.(message[1], 0))
    case "due":
      return subscribers.forEach((subscriber) => subscriber.onWake?.(message[1], message[2]))
  }
}

/** Makes the channel. Nothing is subscribed on the server before the first subscriber. */
export const make = Effect.fnUntraced(function* (
  redis: Redis.Redis["Service"],
  runner: ScriptRunner,
  outages: Outages
): Effect.fn.Return<ProcessChannel, never, Scope.Scope> {
  const { shards } = runner.keyspace
  const process = crypto.randomUUID().replaceAll("-", "").slice(0, 16)
  const pingShard = ping(runner, process)
  const subscribers = new Set<Subscriber>()
  /** Counts pings: each goes to the next shard. */
  let round = 0
  const task = outages.background("receive messages of the Redis channel")

  /** Follows one subscription until it fails. */
  const follow = Effect.gen(function* () {
    const messages = yield* openSubscription(redis, runner, runner.keyspace.channel(process))
    let unanswered = 0
    /** Messages may have been missed since the last resync. */
    let missed = true

    const receive = (text: string): Effect.Effect<void> => {
      const message = decodeMessage(text)
      if (message === undefined) return Effect.void
      if (message[0] !== "ping") {
        dispatch(subscribers, message)
        return Effect.void
      }
      unanswered = 0
      if (missed || !message[2]) subscribers.forEach((subscriber) => subscriber.onResync())
      missed = false
      return task.succeeded
    }

    const pingNextShard = Effect.suspend(() => pingShard(++round % shards, round))
    const check = Effect.suspend(() => {
      if (unanswered >= MAX_UNANSWERED_PINGS) {
        return Effect.fail(new CallFailed({ cause: new Error("the subscription is silent") }))
      }
      const times = Math.ceil(shards / INTERVALS_PER_ROUND) - 1
      return Effect.match(Effect.repeat(pingNextShard, { times }), {
        onFailure: () => {
          missed = true
        },
        onSuccess: () => {
          unanswered++
        }
      })
    })

    // the new server knows nothing of a subscription on the old one, which receives what is replicated
    const left = Effect.andThen(
      runner.untilReconnect,
      Effect.fail(new CallFailed({ cause: new Error("its server has become a replica") }))
    )
    return yield* Effect.raceAllFirst([
      Effect.forever(Effect.flatMap(Queue.take(messages), ({ message }) => receive(message))),
      Effect.forever(Effect.andThen(check, Effect.sleep(PING_INTERVAL))),
      left
    ])
  })

  const keepFollowing = Effect.scoped(follow).pipe(
    Effect.catchCause(task.failed),
    Effect.andThen(Effect.sleep(RESUBSCRIBE_DELAY)),
    Effect.forever
  )
  const subscription = yield* RcRef.make({ acquire: Effect.forkScoped(keepFollowing) })

  return {
    process,
    subscribe: (subscriber) =>
      Effect.andThen(
        Effect.acquireRelease(
          Effect.sync(() => void subscribers.add(subscriber)),
          () => Effect.sync(() => subscribers.delete(subscriber))
        ),
        RcRef.get(subscription)
      )
  }
})
