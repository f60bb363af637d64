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
import { QueueConsumer, ActiveConsumer } from "./ActiveConsumer.ts"
import { tryCall, type Connection, type ReconnectingConnection } from "./Connection.ts"
import { readProperties } from "./OutgoingMessage.ts"
import type { RabbitError } from "./RabbitError.ts"
import type { Topology } from "./Topology.ts"
import type { UnackedMessages, UnackedMessage } from "./UnackedMessages.ts"

/** A message is kept unclaimed so long at most, or twice as long. */
const PATIENCE = Duration.millis(500)
/** Acks that are on their way make room within so long. */
const HUNGER = "20 millis"
/** At the end of a worker, the server has so long to answer that it sends nothing more. */
const CANCEL = "2 seconds"

/** A worker that listens. */
interface Listener {
  readonly consumers: ReadonlyArray<QueueConsumer>
  /** Tells its worker that something came. */
  readonly wake: () => void
  /** Open where a consumer has to be begun or ended. */
  readonly changed: Latch.Latch
  /** Open where one is hungry. */
  readonly hungry: Latch.Latch
}

/** What is pushed here. */
export interface PrefetchBuffer {
  /** Whether somebody listens to a queue. */
  readonly isConsumed: (queue: string) => boolean
  /** Takes what was pushed, the oldest first. */
  readonly take: (queues: ReadonlySet<string>, max: number) => ReadonlyArray<UnackedMessage>
  /** The same of one queue, for nobody who has slots free. */
  readonly takeForPurge: (queue: string, max: number) => ReadonlyArray<UnackedMessage>
  /** What was pushed of a queue and is not taken. */
  readonly count: (queue: string) => number
  /** Consumes the queues for a worker with so many slots; emits when something came. */
  readonly subscribe: (queues: Batch<string>, slots: number) => Stream.Stream<void, RabbitError>
}

/** Over one line. Ends with the scope. */
export const make = Effect.fnUntraced(function* (
  lines: ReconnectingConnection,
  topology: Topology,
  claims: UnackedMessages
): Effect.fn.Return<PrefetchBuffer, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const listeners = new Set<Listener>()
  let tags = 0

  const consumersOf = (queues: ReadonlySet<string>): Array<readonly [Listener, QueueConsumer]> => {
    const found: Array<readonly [Listener, QueueConsumer]> = []
    for (const listener of listeners) {
      for (const consumer of listener.consumers) {
        if (queues.has(consumer.queue)) found.push([listener, consumer])
      }
    }
    return found
  }

  // #region Consuming

  const cancel = ({ line, tag }: ActiveConsumer): Effect.Effect<void, RabbitError> =>
    line.isClosed ? Effect.void : Effect.asVoid(tryCall(() => line.channel.cancel(tag)))

  const begin = Effect.fnUntraced(function* (
    listener: Listener,
    consumer: QueueConsumer
  ): Effect.fn.Return<void, RabbitError> {
    yield* topology.declareQueue(consumer.queue)
    const line = yield* lines.current
    const before = consumer.active
    const now = clock.monotonicTimeNanosUnsafe()
    const on = new ActiveConsumer(line, `chicory.${process.pid}.${++tags}`, now)
    // noted before it is answered, so that it is ended whatever becomes of this fiber
    consumer.active = on
    if (before !== undefined) yield* cancel(before)
    if (consumer.closed) return
    const receive = (message: ConsumeMessage | null) => {
      if (message === null) {
        // the server has ended it: its queue was removed, or moves to another node
        on.mustRestart = true
        topology.invalidate()
        return listener.changed.openUnsafe()
      }
      const { queue } = consumer
      const pushed = {
        connection: line,
        queue,
        message,
        consumer: on,
        receivedAt: clock.monotonicTimeNanosUnsafe()
      }
      claims.add(pushed)
      if (consumer.closed) return claims.requeue([pushed])
      consumer.receive(pushed, on)
      if (on.mustRestart) listener.changed.openUnsafe()
      // whoever has a free slot may take it
      for (const { consumers, wake } of listeners) {
        if (consumers.some((one) => one.queue === queue)) wake()
      }
    }
    yield* tryCall(() => {
      // what is asked for in one turn goes out in order: this prefetch is that of this consumer
      void line.channel.prefetch(consumer.prefetchLimit).catch(() => {})
      return line.channel.consume(topology.names.queue(consumer.queue), receive, { consumerTag: on.tag })
    }).pipe(
      Effect.tapError(() =>
        Effect.sync(() => {
          on.mustRestart = true
          topology.invalidate()
        })
      )
    )
  })

  /** Nothing more is pushed, and what was goes back. */
  const end = (consumer: QueueConsumer): Effect.Effect<void, RabbitError> =>
    Effect.suspend(() => {
      const { active: on } = consumer
      consumer.active = undefined
      return on === undefined ? Effect.void : cancel(on)
    }).pipe(
      Effect.ensuring(
        Effect.sync(() => {
          const { prefetched: pushed } = consumer
          consumer.prefetched = []
          claims.requeue(pushed)
        })
      )
    )

  const sayFailure = ({ queue }: QueueConsumer, beginning: Effect.Effect<void, RabbitError>) =>
    Effect.tapError(beginning, (error) =>
      Effect.logWarning(`The queue ${queue} of RabbitMQ cannot be consumed; trying again`, error)
    )

  /** Begins what is wanted, and ends what is not; one that cannot be had does not keep the others from it. */
  const adjust = (listener: Listener): Effect.Effect<void, RabbitError> =>
    Effect.forEach(
      listener.consumers,
      (consumer) => {
        if (consumer.isAsWanted) return Effect.succeed(Exit.void)
        return Effect.exit(consumer.wanted ? sayFailure(consumer, begin(listener, consumer)) : end(consumer))
      },
      { concurrency: "unbounded" }
    ).pipe(Effect.flatMap((exits) => exits.find(Exit.isFailure) ?? Effect.void))

  const isStale = ({ prefetched: [oldest] }: QueueConsumer): boolean =>
    oldest !== undefined &&
    clock.monotonicTimeNanosUnsafe() - oldest.receivedAt > BigInt(Duration.toMillis(PATIENCE)) * 1_000_000n

  const stopStale = (listener: Listener): void => {
    for (const consumer of listener.consumers) {
      if (!isStale(consumer)) continue
      consumer.pause()
      listener.changed.openUnsafe()
    }
  }

  const feedHungry = (listener: Listener): void => {
    for (const consumer of listener.consumers) {
      const { starved: hungry, active: on } = consumer
      consumer.starved = undefined
      if (on === undefined || on.received !== hungry || !consumer.isAtPrefetchLimit) continue
      on.mustRestart = true
      listener.changed.openUnsafe()
    }
  }

  const listen = (queues: Batch<string>, slots: number) =>
    Stream.callback<void, RabbitError>(
      Effect.fnUntraced(function* (reasons) {
        const listener: Listener = {
          consumers: [...new Set(queues)].map((queue) => new QueueConsumer(queue, slots)),
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
  const lose = (line: Connection): void => {
    for (const { changed, consumers } of listeners) {
      for (const consumer of consumers) {
        consumer.prefetched = consumer.prefetched.filter((pushed) => pushed.connection !== line)
      }
      changed.openUnsafe()
    }
    claims.dropConnection(line)
  }
  yield* lines.current.pipe(
    Effect.flatMap((line) =>
      Effect.andThen(
        Deferred.await(line.closed),
        Effect.sync(() => lose(line))
      )
    ),
    Effect.repeat(Schedule.forever),
    Effect.forkScoped
  )

  const dueOf = ({ message }: UnackedMessage): number => readProperties(message).dueAt ?? 0

  const takeFrom = (consumers: ReadonlyArray<QueueConsumer>, max: number): ReadonlyArray<UnackedMessage> => {
    const full = consumers.filter(({ prefetched: pushed }) => pushed.length > 0)
    if (full.length === 1) return full[0]!.prefetched.splice(0, max)
    const taken: Array<UnackedMessage> = []
    while (taken.length < max) {
      let oldest: QueueConsumer | undefined
      for (const consumer of full) {
        const [head] = consumer.prefetched
        if (head === undefined) continue
        if (oldest === undefined || dueOf(head) < dueOf(oldest.prefetched[0]!)) oldest = consumer
      }
      if (oldest === undefined) break
      taken.push(oldest.prefetched.shift()!)
    }
    return taken
  }

  /** A worker has slots free for which nothing was here. */
  const want = ([listener, consumer]: readonly [Listener, QueueConsumer]): void => {
    if (!consumer.wanted) {
      consumer.wanted = true
      listener.changed.openUnsafe()
    } else if (consumer.isAtPrefetchLimit) {
      consumer.starved ??= consumer.active?.received
      listener.hungry.openUnsafe()
    }
  }

  return {
    isConsumed: (queue) => consumersOf(new Set([queue])).length > 0,
    count: (queue) =>
      consumersOf(new Set([queue])).reduce((sum, [, { prefetched: pushed }]) => sum + pushed.length, 0),
    takeForPurge: (queue, max) =>
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
    subscribe: listen
  }
})
