/**
 * The one subscription of a process: what the store has to tell it comes over a channel of its own.
 *
 * It is open while somebody listens. A client that lost its connection makes it again in silence, and what was
 * published meanwhile is gone; so the process pings itself over the channel. A ping that does not come back means a
 * dead subscription, which is made anew; one that comes back tells whether a message reached nobody, or the server has
 * forgotten this process. Either way whoever listens hears of the gap, and reads again.
 */
import { Duration, Effect, Exit, Fiber, Queue, RcRef, Schema, Scope } from "effect"
import type * as Redis from "effect/persistence/Redis"
import { parse } from "../internal/json.ts"
import { CallFailed } from "./fieldDecoding.ts"
import { type ScriptRunner, script } from "./ScriptRunner.ts"
import { ping } from "./scripts/prelude.ts"
import type { ServerInfo } from "./ServerInfo.ts"

/** Hears what comes in. */
export interface Subscriber {
  /** Tasks that changed. */
  readonly onHint?: (ids: ReadonlyArray<string>) => void
  /** There may be something to claim: now, or after that time. */
  readonly onWake?: (queue: string, afterMillis: number) => void
  /** Anything may have happened unheard. */
  readonly onResync: () => void
}

/** A process's channel. */
export interface ProcessChannel {
  /** The name of this process, which nobody else has: its channel is named after it. */
  readonly process: string
  /** Keeps the subscription open until the scope closes. One that is new begins with a gap. */
  readonly subscribe: (listener: Subscriber) => Effect.Effect<void, never, Scope.Scope>
}

const Changed = Schema.TupleWithRest(Schema.Tuple([Schema.Literal("changed")]), [Schema.String])
const Ready = Schema.Tuple([Schema.Literal("ready"), Schema.String])
const Due = Schema.Tuple([Schema.Literal("due"), Schema.String, Schema.Number])
const Ping = Schema.Tuple([Schema.Literal("ping"), Schema.String, Schema.Boolean])
const decode = Schema.decodeUnknownExit(Schema.Union([Changed, Ready, Due, Ping]))

const pingInterval = Duration.seconds(1)
/** Looks without an answer before the subscription is given up. */
const PATIENCE = 2
/** Every shard is asked once in so many looks: its mark of this process must not run out meanwhile. */
const ROUND = 20
/** How soon a subscription that broke is made again. */
const resubscribe = Duration.millis(250)

/** Makes the channel; nothing is subscribed before somebody listens. */
export const make = Effect.fnUntraced(function* (
  redis: Redis.Redis["Service"],
  calls: ScriptRunner,
  { clustered }: ServerInfo
): Effect.fn.Return<ProcessChannel, never, Scope.Scope> {
  const { keyspace } = calls
  const process = crypto.randomUUID().replaceAll("-", "").slice(0, 16)
  const pingScript = script(ping(clustered))
  const listeners = new Set<Subscriber>()
  let turn = 0

  const gap = (): void => listeners.forEach((listener) => listener.onResync())

  /**
   * A client may take for ever over it where the server is silent, and cannot be interrupted meanwhile. So nobody
   * waits for that; a subscription that comes too late is closed.
   */
  const subscribe = Effect.gen(function* () {
    const own = yield* Scope.make()
    const subscribing = yield* Effect.forkDetach(
      Scope.provide(redis.subscribe(keyspace.channel(process)), own)
    )
    yield* Effect.addFinalizer((exit) => {
      const close = Scope.close(own, exit)
      return subscribing.pollUnsafe() === undefined
        ? Effect.forkDetach(Effect.andThen(Fiber.interrupt(subscribing), close))
        : close
    })
    return yield* calls.bounded(Fiber.join(subscribing))
  })

  /** The last subscription was heard, so that its end is news. */
  let heard = true

  /** One subscription, until it breaks. */
  const follow = Effect.gen(function* () {
    const inbox = yield* subscribe
    /** Looks without an answer. */
    let open = 0
    /** Something may have been missed since the last gap was told. */
    let missed = true

    const receive = ({ message }: Redis.RedisMessage): void => {
      const json = parse(message)
      // the name is nobody else's, but anybody can publish
      if (Exit.isFailure(json)) return
      const decoded = decode(json.value)
      if (Exit.isFailure(decoded)) return
      const news = decoded.value
      switch (news[0]) {
        case "changed": {
          const [, ...ids] = news
          return listeners.forEach((listener) => listener.onHint?.(ids))
        }
        case "ready":
          return listeners.forEach((listener) => listener.onWake?.(news[1], 0))
        case "due":
          return listeners.forEach((listener) => listener.onWake?.(news[1], news[2]))
        case "ping": {
          open = 0
          heard = true
          if (missed || !news[2]) gap()
          missed = false
        }
      }
    }
    const hear = Effect.forever(Effect.map(Queue.take(inbox), receive))

    const look = Effect.suspend(() => {
      if (open >= PATIENCE) {
        return Effect.fail(new CallFailed({ cause: new Error("the subscription is silent") }))
      }
      const ask = Effect.suspend(() => calls.run(pingScript, ++turn % keyspace.shards, [process, `${turn}`]))
      return Effect.match(Effect.repeat(ask, { times: Math.ceil(keyspace.shards / ROUND) - 1 }), {
        onFailure: () => {
          missed = true
        },
        onSuccess: () => {
          open++
        }
      })
    })
    return yield* Effect.raceFirst(hear, Effect.forever(Effect.andThen(look, Effect.sleep(pingInterval))))
  })

  const keepFollowing = Effect.scoped(follow).pipe(
    Effect.catchCause((cause) => {
      const log = heard ? Effect.logWarning : Effect.logDebug
      heard = false
      return log("The subscription of this process broke off; subscribing again", cause)
    }),
    Effect.andThen(Effect.sleep(resubscribe)),
    Effect.forever
  )
  const subscription = yield* RcRef.make({ acquire: Effect.forkScoped(keepFollowing) })

  return {
    process,
    subscribe: (listener) =>
      Effect.andThen(
        Effect.acquireRelease(
          Effect.sync(() => void listeners.add(listener)),
          () => Effect.sync(() => listeners.delete(listener))
        ),
        RcRef.get(subscription)
      )
  }
})
