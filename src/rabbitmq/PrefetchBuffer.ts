/**
 * What the server pushes to this process.
 *
 * A worker that listens consumes each of its queues, with as many messages unacked as it has slots. What comes is
 * kept here, unclaimed, until a worker of this process claims it. What nobody has claimed for a while, since all
 * slots are taken, goes back to the server, so that other processes can run it; nothing more is consumed then until a
 * claim asks for it. Where slots are free and nothing comes, since handlers that wait for other tasks hold all the
 * messages that may be unacked, the queue is consumed anew, and the server counts from zero.
 *
 * A worker whose tasks are short would be idle while its acks are on their way. So it lets more be pushed, for as long
 * as it is fast enough to take all of it in a moment.
 */
import type { ConsumeMessage } from "amqplib"
import { Clock, Deferred, Duration, Effect, Exit, Latch, Queue, Schedule, type Scope, Stream } from "effect"
import type { Batch } from "../BrokerDriver.ts"
import { backoff } from "../internal/backoff.ts"
import { Consumer, Consumption } from "./ActiveConsumer.ts"
import { attempt, type Line, type Lines } from "./Connection.ts"
import { headOf } from "./OutgoingMessage.ts"
import type { RabbitError } from "./RabbitError.ts"
import type { Topology } from "./Topology.ts"
import type { Claims, Held } from "./UnackedMessages.ts"

/** A message is kept unclaimed so long at most, or twice as long. */
const PATIENCE = Duration.millis(500)
/** Acks that are on their way make room within so long. */
const HUNGER = "20 millis"
/** At the end of a worker, the server has so long to answer that it sends nothing more. */
const CANCEL = "2 seconds"

/** A worker that listens. */
interface Listener {
  readonly consumers: ReadonlyArray<Consumer>
  /** Tells its worker that something came. */
  readonly wake: () => void
  /** Open where a consumer has to be begun or ended. */
  readonly changed: Latch.Latch
  /** Open where one is hungry. */
  readonly hungry: Latch.Latch
}

/** What is pushed here. */
export interface Inbox {
  /** Whether somebody listens to a queue. */
  readonly isConsumed: (queue: string) => boolean
  /** Takes what was pushed, the oldest first. */
  readonly take: (queues: ReadonlySet<string>, max: number) => ReadonlyArray<Held>
  /** The same of one queue, for nobody who has slots free. */
  readonly takeUnclaimed: (queue: string, max: number) => ReadonlyArray<Held>
  /** What was pushed of a queue and is not taken. */
  readonly count: (queue: string) => number
  /** Consumes the queues for a worker with so many slots; emits when something came. */
  readonly listen: (queues: Batch<string>, slots: number) => Stream.Stream<void, RabbitError>
}

/** Over one line. Ends with the scope. */
export const make = Effect.fnUntraced(function* (
  lines: Lines,
  topology: Topology,
  claims: Claims
): Effect.fn.Return<Inbox, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const listeners = new Set<Listener>()
  let tags = 0

  const consumersOf = (queues: ReadonlySet<string>): Array<readonly [Listener, Consumer]> => {
    const found: Array<readonly [Listener, Consumer]> = []
    for (const listener of listeners) {
      for (const consumer of listener.consumers) {
        if (queues.has(consumer.queue)) found.push([listener, consumer])
      }
    }
    return found
  }

  // #region Consuming

  const cancel = ({ line, tag }: Consumption): Effect.Effect<void, RabbitError> =>
    line.hasEnded ? Effect.void : Effect.asVoid(attempt(() => line.channel.cancel(tag)))

  const begin = Effect.fnUntraced(function* (
    listener: Listener,
    consumer: Consumer
  ): Effect.fn.Return<void, RabbitError> {
    yield* topology.queue(consumer.queue)
    const line = yield* lines.open
    const before = consumer.on
    const now = clock.monotonicTimeNanosUnsafe()
    const on = new Consumption(line, `chicory.${process.pid}.${++tags}`, now)
    // noted before it is answered, so that it is ended whatever becomes of this fiber
    consumer.on = on
    if (before !== undefined) yield* cancel(before)
    if (consumer.closed) return
    const receive = (message: ConsumeMessage | null) => {
      if (message === null) {
        // the server has ended it: its queue was removed, or moves to another node
        on.isSpent = true
        topology.forget()
        return listener.changed.openUnsafe()
      }
      const { queue } = consumer
      const pushed = { line, queue, message, by: on, at: clock.monotonicTimeNanosUnsafe() }
      claims.note(pushed)
      if (consumer.closed) return claims.putBack([pushed])
      consumer.receive(pushed, on)
      if (on.isSpent) listener.changed.openUnsafe()
      // whoever has a free slot may take it
      for (const { consumers, wake } of listeners) {
        if (consumers.some((one) => one.queue === queue)) wake()
      }
    }
    yield* attempt(() => {
      // what is asked for in one turn goes out in order: this prefetch is that of this consumer
      void line.channel.prefetch(consumer.most).catch(() => {})
      return line.channel.consume(topology.names.queue(consumer.queue), receive, { consumerTag: on.tag })
    }).pipe(
      Effect.tapError(() =>
        Effect.sync(() => {
          on.isSpent = true
          topology.forget()
        })
      )
    )
  })

  /** Nothing more is pushed, and what was goes back. */
  const end = (consumer: Consumer): Effect.Effect<void, RabbitError> =>
    Effect.suspend(() => {
      const { on } = consumer
      consumer.on = undefined
      return on === undefined ? Effect.void : cancel(on)
    }).pipe(
      Effect.ensuring(
        Effect.sync(() => {
          const { pushed } = consumer
          consumer.pushed = []
          claims.putBack(pushed)
        })
      )
    )

  const sayFailure = ({ queue }: Consumer, beginning: Effect.Effect<void, RabbitError>) =>
    Effect.tapError(beginning, (error) =>
      Effect.logWarning(`The queue ${queue} of RabbitMQ cannot be consumed; trying again`, error)
    )

  /** Begins what is wanted, and ends what is not; one that cannot be had does not keep the others from it. */
  const adjust = (listener: Listener): Effect.Effect<void, RabbitError> =>
    Effect.forEach(
      listener.consumers,
      (consumer) => {
        if (consumer.isRight) return Effect.succeed(Exit.void)
        return Effect.exit(consumer.wanted ? sayFailure(consumer, begin(listener, consumer)) : end(consumer))
      },
      { concurrency: "unbounded" }
    ).pipe(Effect.flatMap((exits) => exits.find(Exit.isFailure) ?? Effect.void))

  const isStale = ({ pushed: [oldest] }: Consumer): boolean =>
    oldest !== undefined &&
    clock.monotonicTimeNanosUnsafe() - oldest.at > BigInt(Duration.toMillis(PATIENCE)) * 1_000_000n

  const stopStale = (listener: Listener): void => {
    for (const consumer of listener.consumers) {
      if (!isStale(consumer)) continue
      consumer.pause()
      listener.changed.openUnsafe()
    }
  }

  const feedHungry = (listener: Listener): void => {
    for (const consumer of listener.consumers) {
      const { hungry, on } = consumer
      consumer.hungry = undefined
      if (on === undefined || on.received !== hungry || !consumer.isFull) continue
      on.isSpent = true
      listener.changed.openUnsafe()
    }
  }

  const listen = (queues: Batch<string>, slots: number) =>
    Stream.callback<void, RabbitError>(
      Effect.fnUntraced(function* (reasons) {
        const listener: Listener = {
          consumers: [...new Set(queues)].map((queue) => new Consumer(queue, slots)),
          wake: () => void Queue.offerUnsafe(reasons, undefined),
          changed: Latch.makeUnsafe(true),
          hungry: Latch.makeUnsafe(false)
        }
        yield* Effect.acquireRelease(
          Effect.sync(() => listeners.add(listener)),
          () => {
            listeners.delete(listener)
            for (const consumer of listener.consumers) consumer.closed = true
            return Effect.forEach(listener.consumers, end, { concurrency: "unbounded", discard: true }).pipe(
              Effect.timeoutOption(CANCEL),
              Effect.ignore
            )
          }
        )
        yield* Effect.sleep(PATIENCE).pipe(
          Effect.andThen(Effect.sync(() => stopStale(listener))),
          Effect.forever,
          Effect.forkScoped
        )
        yield* listener.hungry.await.pipe(
          Effect.andThen(Effect.sleep(HUNGER)),
          Effect.andThen(
            Effect.sync(() => {
              listener.hungry.closeUnsafe()
              feedHungry(listener)
            })
          ),
          Effect.forever,
          Effect.forkScoped
        )
        yield* Effect.suspend(() => {
          listener.changed.closeUnsafe()
          return adjust(listener)
        }).pipe(Effect.retry(backoff), Effect.andThen(listener.changed.await), Effect.forever)
      }),
      { bufferSize: 1, strategy: "sliding" }
    )

  // #endregion

  /** A line that ended has taken all with it. */
  const lose = (line: Line): void => {
    for (const { changed, consumers } of listeners) {
      for (const consumer of consumers) {
        consumer.pushed = consumer.pushed.filter((pushed) => pushed.line !== line)
      }
      changed.openUnsafe()
    }
    claims.lose(line)
  }
  yield* lines.open.pipe(
    Effect.flatMap((line) =>
      Effect.andThen(
        Deferred.await(line.ended),
        Effect.sync(() => lose(line))
      )
    ),
    Effect.repeat(Schedule.forever),
    Effect.forkScoped
  )

  const dueOf = ({ message }: Held): number => headOf(message).due ?? 0

  const takeFrom = (consumers: ReadonlyArray<Consumer>, max: number): ReadonlyArray<Held> => {
    const full = consumers.filter(({ pushed }) => pushed.length > 0)
    if (full.length === 1) return full[0]!.pushed.splice(0, max)
    const taken: Array<Held> = []
    while (taken.length < max) {
      let oldest: Consumer | undefined
      for (const consumer of full) {
        const [head] = consumer.pushed
        if (head === undefined) continue
        if (oldest === undefined || dueOf(head) < dueOf(oldest.pushed[0]!)) oldest = consumer
      }
      if (oldest === undefined) break
      taken.push(oldest.pushed.shift()!)
    }
    return taken
  }

  /** A worker has slots free for which nothing was here. */
  const want = ([listener, consumer]: readonly [Listener, Consumer]): void => {
    if (!consumer.wanted) {
      consumer.wanted = true
      listener.changed.openUnsafe()
    } else if (consumer.isFull) {
      consumer.hungry ??= consumer.on?.received
      listener.hungry.openUnsafe()
    }
  }

  return {
    isConsumed: (queue) => consumersOf(new Set([queue])).length > 0,
    count: (queue) => consumersOf(new Set([queue])).reduce((sum, [, { pushed }]) => sum + pushed.length, 0),
    takeUnclaimed: (queue, max) =>
      takeFrom(
        consumersOf(new Set([queue])).map(([, consumer]) => consumer),
        max
      ),
    take: (queues, max) => {
      const found = consumersOf(queues)
      const taken = takeFrom(
        found.map(([, consumer]) => consumer),
        max
      )
      if (taken.length < max) found.forEach(want)
      return taken
    },
    listen
  }
})
