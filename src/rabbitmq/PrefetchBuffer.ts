/**
 * The messages that the server has pushed to this process and no worker has claimed yet.
 *
 * A subscribed worker consumes each of its queues, with a prefetch of one message per slot. Pushed messages are buffered
 * here until a worker of this process claims them. Three rules keep them moving:
 *
 * - A message that stays unclaimed for `UNCLAIMED_LIMIT`, since all slots are taken, is requeued, so that another process
 *   can run it. The queue is not consumed again until a claim finds too little.
 * - Where a claim finds too little and the prefetch is exhausted for `STARVED_AFTER`, since handlers that wait for other
 *   tasks hold all unacked messages, the consumer is restarted, and the server counts its prefetch from zero.
 * - A worker whose tasks are short would idle while its acks are in flight, so a fast worker gets a larger prefetch.
 */
import type { ConsumeMessage } from "amqplib"
import { Clock, Deferred, Duration, Effect, Exit, Latch, Queue, Schedule, type Scope, Stream } from "effect"
import type { Batch } from "../BrokerDriver.ts"
import { backoff } from "../internal/backoff.ts"
import { ActiveConsumer } from "./ActiveConsumer.ts"
import { type Connection, tryCall } from "./Connection.ts"
import { readProperties } from "./OutgoingMessage.ts"
import { type PrefetchedMessage, QueueConsumer } from "./QueueConsumer.ts"
import type { RabbitError } from "./RabbitError.ts"
import type { ReconnectingConnection } from "./ReconnectingConnection.ts"
import type { Topology } from "./Topology.ts"
import type { UnackedMessage, UnackedMessages } from "./UnackedMessages.ts"

/** A message stays unclaimed for at most twice this time, as the check runs at this interval. */
const UNCLAIMED_LIMIT = Duration.millis(500)
const UNCLAIMED_LIMIT_NANOS = BigInt(Duration.toMillis(UNCLAIMED_LIMIT)) * 1_000_000n
/** Acks in flight make room within this time; an exhausted prefetch after it means starvation. */
const STARVED_AFTER = "20 millis"
/** Consumers that are started at a time. The queue of each is declared over a channel, of which a connection has at most 2,047. */
const STARTS_AT_ONCE = 200
/** How long the end of a worker waits for the server to cancel its consumers. */
const CANCEL_TIMEOUT = "2 seconds"

/** A worker that waits for messages. */
interface Subscriber {
  readonly consumers: ReadonlyArray<QueueConsumer>
  /** Wakes the worker: there may be something to claim. */
  readonly wake: () => void
  /** Open while a consumer may have to be started or stopped. */
  readonly changed: Latch.Latch
  /** Open while a consumer may be starved. */
  readonly starved: Latch.Latch
}

interface Subscription {
  readonly subscriber: Subscriber
  readonly consumer: QueueConsumer
}

const dueAtOf = ({ message }: UnackedMessage): number => readProperties(message).dueAt ?? 0

/** Takes up to `max` buffered messages, those that became due first before the others. */
const takeFrom = (
  subscriptions: ReadonlyArray<Subscription>,
  max: number
): ReadonlyArray<PrefetchedMessage> => {
  const buffers = subscriptions.map(({ consumer }) => consumer.prefetched).filter(({ length }) => length > 0)
  if (buffers.length === 1) return buffers[0]!.splice(0, max)
  const taken: Array<PrefetchedMessage> = []
  while (taken.length < max) {
    let oldest: Array<PrefetchedMessage> | undefined
    for (const buffer of buffers) {
      const [head] = buffer
      if (head === undefined) continue
      if (oldest === undefined || dueAtOf(head) < dueAtOf(oldest[0]!)) oldest = buffer
    }
    if (oldest === undefined) break
    taken.push(oldest.shift()!)
  }
  return taken
}

/** A claim left slots free: starts the consumer if it is paused, and checks whether it is starved. */
const requestMore = ({ consumer, subscriber }: Subscription): void => {
  if (!consumer.wanted) {
    consumer.wanted = true
    subscriber.changed.openUnsafe()
  } else if (consumer.isAtPrefetchLimit) {
    consumer.starved ??= consumer.active?.received
    subscriber.starved.openUnsafe()
  }
}

/** Restarts the consumers that were starved and have received nothing since. */
const restartStarved = (subscriber: Subscriber): void => {
  subscriber.starved.closeUnsafe()
  for (const consumer of subscriber.consumers) {
    const { active, starved } = consumer
    consumer.starved = undefined
    if (active === undefined || active.received !== starved || !consumer.isAtPrefetchLimit) continue
    active.mustRestart = true
    subscriber.changed.openUnsafe()
  }
}

/** Cancels a consumer on the server: it pushes nothing more. */
const cancel = ({ connection, tag }: ActiveConsumer): Effect.Effect<void, RabbitError> =>
  connection.isClosed ? Effect.void : Effect.asVoid(tryCall(() => connection.channel.cancel(tag)))

/** The buffer of a process, over one connection. */
export class PrefetchBuffer {
  private readonly connection: ReconnectingConnection
  private readonly topology: Topology
  private readonly unacked: UnackedMessages
  private readonly clock: Clock.Clock
  private readonly subscribers = new Set<Subscriber>()
  /** The subscriptions of a queue. A worker may have thousands of queues, and each claim asks for all of them. */
  private readonly subscriptions = new Map<string, Set<Subscription>>()
  private lastTag = 0

  constructor(
    connection: ReconnectingConnection,
    topology: Topology,
    unacked: UnackedMessages,
    clock: Clock.Clock
  ) {
    this.connection = connection
    this.topology = topology
    this.unacked = unacked
    this.clock = clock
  }

  /** Whether a worker of this process is subscribed to the queue. */
  isConsumed(queue: string): boolean {
    return this.subscriptions.has(queue)
  }

  /** Counts the buffered messages of a queue. */
  count(queue: string): number {
    let count = 0
    for (const { consumer } of this.subscriptions.get(queue) ?? []) count += consumer.prefetched.length
    return count
  }

  /** Takes up to `max` buffered messages for a worker with that many free slots, the oldest due time first. */
  take(queues: ReadonlySet<string>, max: number): ReadonlyArray<UnackedMessage> {
    const subscriptions = this.subscriptionsTo(queues)
    const taken = takeFrom(subscriptions, max)
    if (taken.length < max) subscriptions.forEach(requestMore)
    return taken
  }

  /** Takes up to `max` buffered messages of a queue, and requests no more from the server. */
  takeForPurge(queue: string, max: number): ReadonlyArray<UnackedMessage> {
    return takeFrom(this.subscriptionsTo(new Set([queue])), max)
  }

  /**
   * Consumes the queues for a worker with that many slots, and emits when there may be something to claim. When the stream
   * ends, the consumers are cancelled, and their buffered messages are requeued.
   */
  readonly subscribe = (queues: Batch<string>, slots: number): Stream.Stream<void, RabbitError> =>
    Stream.callback<void, RabbitError>(
      (wakeups) =>
        this.runSubscriber(new Set(queues), slots, () => void Queue.offerUnsafe(wakeups, undefined)),
      { bufferSize: 1, strategy: "sliding" }
    )

  /** Drops what came over a connection that is closed: the server delivers it again. */
  dropConnection(connection: Connection): void {
    for (const { changed, consumers } of this.subscribers) {
      for (const consumer of consumers) {
        consumer.prefetched = consumer.prefetched.filter((message) => message.connection !== connection)
      }
      changed.openUnsafe()
    }
    this.unacked.dropConnection(connection)
  }

  private subscriptionsTo(queues: ReadonlySet<string>): ReadonlyArray<Subscription> {
    const found: Array<Subscription> = []
    for (const queue of queues) found.push(...(this.subscriptions.get(queue) ?? []))
    return found
  }

  // #region Subscribers

  private runSubscriber(
    queues: ReadonlySet<string>,
    slots: number,
    wake: () => void
  ): Effect.Effect<never, RabbitError, Scope.Scope> {
    return Effect.gen({ self: this }, function* () {
      const subscriber: Subscriber = {
        consumers: Array.from(queues, (queue) => new QueueConsumer(queue, slots)),
        wake,
        changed: Latch.makeUnsafe(true),
        starved: Latch.makeUnsafe(false)
      }
      yield* Effect.acquireRelease(
        Effect.sync(() => this.addSubscriber(subscriber)),
        () => this.removeSubscriber(subscriber)
      )
      yield* Effect.sleep(UNCLAIMED_LIMIT).pipe(
        Effect.andThen(Effect.sync(() => this.pauseUnclaimed(subscriber))),
        Effect.forever,
        Effect.forkScoped
      )
      yield* subscriber.starved.await.pipe(
        Effect.andThen(Effect.sleep(STARVED_AFTER)),
        Effect.andThen(Effect.sync(() => restartStarved(subscriber))),
        Effect.forever,
        Effect.forkScoped
      )
      return yield* Effect.suspend(() => {
        subscriber.changed.closeUnsafe()
        return this.adjustConsumers(subscriber)
      }).pipe(Effect.retry(backoff), Effect.andThen(subscriber.changed.await), Effect.forever)
    })
  }

  private addSubscriber(subscriber: Subscriber): void {
    this.subscribers.add(subscriber)
    for (const consumer of subscriber.consumers) {
      const subscriptions = this.subscriptions.get(consumer.queue) ?? new Set()
      this.subscriptions.set(consumer.queue, subscriptions.add({ subscriber, consumer }))
    }
  }

  private removeSubscriber(subscriber: Subscriber): Effect.Effect<void> {
    this.subscribers.delete(subscriber)
    for (const { queue } of subscriber.consumers) {
      const subscriptions = this.subscriptions.get(queue) ?? new Set()
      for (const one of subscriptions) if (one.subscriber === subscriber) subscriptions.delete(one)
      if (subscriptions.size === 0) this.subscriptions.delete(queue)
    }
    for (const consumer of subscriber.consumers) consumer.closed = true
    return Effect.forEach(subscriber.consumers, (consumer) => this.stop(consumer), {
      concurrency: "unbounded",
      discard: true
    }).pipe(Effect.timeoutOption(CANCEL_TIMEOUT), Effect.ignore)
  }

  /** Pauses the consumers whose oldest buffered message was not claimed in time. */
  private pauseUnclaimed(subscriber: Subscriber): void {
    const now = this.clock.monotonicTimeNanosUnsafe()
    for (const consumer of subscriber.consumers) {
      const [oldest] = consumer.prefetched
      if (oldest === undefined || now - oldest.receivedAt <= UNCLAIMED_LIMIT_NANOS) continue
      consumer.pause()
      subscriber.changed.openUnsafe()
    }
  }

  // #endregion

  // #region Consumers

  /** Starts the consumers that are wanted, and stops the others. One that fails does not hold up the rest. */
  private adjustConsumers(subscriber: Subscriber): Effect.Effect<void, RabbitError> {
    return Effect.forEach(
      subscriber.consumers,
      (consumer) => {
        if (consumer.isAsWanted) return Effect.succeed(Exit.void)
        if (!consumer.wanted) return Effect.exit(this.stop(consumer))
        return this.start(subscriber, consumer).pipe(
          Effect.tapError((error) =>
            // a lost connection is logged as such
            (this.connection.outages.isOngoing ? Effect.logDebug : Effect.logWarning)(
              `Failed to consume the queue "${consumer.queue}" of RabbitMQ; retrying with backoff`,
              error
            )
          ),
          Effect.exit
        )
      },
      { concurrency: STARTS_AT_ONCE }
    ).pipe(Effect.flatMap((exits) => exits.find(Exit.isFailure) ?? Effect.void))
  }

  /** Starts a consumer on the server, in place of the one that was started before. */
  private start(subscriber: Subscriber, consumer: QueueConsumer): Effect.Effect<void, RabbitError> {
    return Effect.gen({ self: this }, function* () {
      yield* this.topology.declareQueue(consumer.queue)
      const connection = yield* this.connection.current
      const previous = consumer.active
      const tag = `chicory.${process.pid}.${++this.lastTag}`
      const active = new ActiveConsumer(connection, tag, this.clock.monotonicTimeNanosUnsafe())
      // set before the server answers, so that it is cancelled even if this fiber is interrupted
      consumer.active = active
      if (previous !== undefined) yield* cancel(previous)
      if (consumer.closed) return
      yield* tryCall(() => {
        // frames of one turn are sent in order, so this prefetch applies to this consumer
        void connection.channel.prefetch(consumer.prefetchLimit).catch(() => {})
        return connection.channel.consume(
          this.topology.names.queue(consumer.queue),
          (message) => this.onDelivery(subscriber, consumer, active, message),
          { consumerTag: tag }
        )
      }).pipe(
        Effect.tapError((error) => {
          active.mustRestart = true
          return this.topology.invalidateIfMissing(error)
        })
      )
    })
  }

  private onDelivery(
    subscriber: Subscriber,
    consumer: QueueConsumer,
    active: ActiveConsumer,
    message: ConsumeMessage | null
  ): void {
    if (message === null) {
      // the server has cancelled the consumer: its queue was removed, or moves to another node
      active.mustRestart = true
      this.topology.invalidate()
      subscriber.changed.openUnsafe()
      return
    }
    const { queue } = consumer
    const prefetched: PrefetchedMessage = {
      connection: active.connection,
      queue,
      message,
      consumer: active,
      receivedAt: this.clock.monotonicTimeNanosUnsafe()
    }
    this.unacked.add(prefetched)
    if (consumer.closed) return this.unacked.requeue([prefetched])
    consumer.receive(prefetched, active)
    if (active.mustRestart) subscriber.changed.openUnsafe()
    // any worker of this process may claim it
    for (const { subscriber } of this.subscriptions.get(queue) ?? []) subscriber.wake()
  }

  /** Cancels a consumer, and requeues its buffered messages. */
  private stop(consumer: QueueConsumer): Effect.Effect<void, RabbitError> {
    return Effect.suspend(() => {
      const { active } = consumer
      consumer.active = undefined
      return active === undefined ? Effect.void : cancel(active)
    }).pipe(
      Effect.ensuring(
        Effect.sync(() => {
          const { prefetched } = consumer
          consumer.prefetched = []
          this.unacked.requeue(prefetched)
        })
      )
    )
  }

  // #endregion
}

/** Makes the buffer. Its connection is watched until the scope closes. */
export const make = Effect.fnUntraced(function* (
  connection: ReconnectingConnection,
  topology: Topology,
  unacked: UnackedMessages
): Effect.fn.Return<PrefetchBuffer, never, Scope.Scope> {
  const buffer = new PrefetchBuffer(connection, topology, unacked, yield* Clock.Clock)
  yield* connection.current.pipe(
    Effect.flatMap((current) =>
      Effect.andThen(
        Deferred.await(current.closed),
        Effect.sync(() => buffer.dropConnection(current))
      )
    ),
    Effect.repeat(Schedule.forever),
    Effect.forkScoped
  )
  return buffer
})
