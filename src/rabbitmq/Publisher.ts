/**
 * Publishes messages with publisher confirms: a message counts as published once the server has confirmed that a queue
 * holds it.
 *
 * Messages are published as `mandatory`, so the server returns those that no queue takes, before it confirms them. If a
 * queue was removed, it is declared again, and the message is published once more. While the server blocks publishers
 * (it is short of memory or disk), nothing is sent.
 */
import { Array as Arr, Deferred, Effect, Schedule } from "effect"
import type { Batch } from "../BrokerDriver.ts"
import type { Connection } from "./Connection.ts"
import * as delayQueues from "./delayQueues.ts"
import { delayRoutingKey } from "./Names.ts"
import type { OutgoingMessage } from "./OutgoingMessage.ts"
import { fromUnknown, maxMessageSizeOf, messageTooLarge, NOT_FOUND, RabbitError } from "./RabbitError.ts"
import type { ReconnectingConnection } from "./ReconnectingConnection.ts"
import type { Topology } from "./Topology.ts"

/** A message with its exchange and routing key. */
interface RoutedMessage {
  readonly exchange: string
  readonly routingKey: string
  readonly message: OutgoingMessage
}

/** The default exchange, which routes to the queue that the routing key names. */
const DEFAULT_EXCHANGE = ""

/** The server cancels the consumers of a removed queue within this time. */
const CANCELLED_WITHIN = "200 millis"
const RETRIES = 5
const retrySchedule = Schedule.exponential("20 millis")

/** A batch whose confirms are outstanding. */
interface InFlightBatch {
  /** The routes of messages that the server returned. */
  readonly returned: Set<string>
  /** `true` if no other batch was in flight at any time meanwhile. */
  alone: boolean
}

const routeOf = ({ exchange, routingKey }: { readonly exchange: string; readonly routingKey: string }) =>
  `${exchange} ${routingKey}`

const notConfirmed = () =>
  new RabbitError({ message: "the server did not confirm a publish", kind: "not confirmed" })

/** Publishes over the connection that is open. */
export class Publisher {
  private readonly connection: ReconnectingConnection
  private readonly topology: Topology
  private readonly inFlight = new Set<InFlightBatch>()
  /** The server's `max_message_size`, once a message has exceeded it. A change is seen by a new process. */
  private maxMessageSize = Infinity
  /** The connections whose returned messages are recorded. */
  private readonly subscribed = new WeakSet<Connection>()

  constructor(connection: ReconnectingConnection, topology: Topology) {
    this.connection = connection
    this.topology = topology
  }

  /** Publishes messages to their queues, by way of the delay queues where they are delayed. */
  readonly publish = (messages: Batch<OutgoingMessage>): Effect.Effect<void, RabbitError> =>
    this.publishRouted(
      Arr.map(messages, (message) => this.toRouted(message)),
      this.declareFor(messages)
    )

  /** Publishes messages to the queues for rejected messages. */
  readonly reject = (messages: Batch<OutgoingMessage>): Effect.Effect<void, RabbitError> =>
    this.publishRouted(
      Arr.map(messages, (message) => ({
        exchange: DEFAULT_EXCHANGE,
        routingKey: this.topology.names.rejectedQueue(message.queue),
        message
      })),
      Effect.forEach(
        new Set(messages.map(({ queue }) => queue)),
        (queue) => this.topology.declareRejectedQueue(queue),
        { discard: true }
      )
    )

  private toRouted(message: OutgoingMessage): RoutedMessage {
    const { names } = this.topology
    if (message.delayMillis <= 0) {
      return { exchange: DEFAULT_EXCHANGE, routingKey: names.queue(message.queue), message }
    }
    const rounded = delayQueues.roundDelay(message.delayMillis)
    return {
      exchange: names.delayExchange(delayQueues.exponentsOf(rounded)[0]!),
      routingKey: delayRoutingKey(rounded, message.queue),
      message
    }
  }

  /** Declares what the messages pass through. */
  private declareFor(messages: Batch<OutgoingMessage>): Effect.Effect<void, RabbitError> {
    const { topology } = this
    const needed = new Map<string, Effect.Effect<void, RabbitError>>()
    for (const { delayMillis, queue } of messages) {
      const rounded = delayMillis <= 0 ? 0 : delayQueues.roundDelay(delayMillis)
      const key = `${rounded} ${queue}`
      if (needed.has(key)) continue
      needed.set(key, rounded === 0 ? topology.declareQueue(queue) : topology.declareDelay(queue, rounded))
    }
    return Effect.forEach([...needed.values()], (declare) => declare, { discard: true })
  }

  /** Publishes messages, and those that are returned once more. `declare` runs before each try. */
  private publishRouted(
    messages: Batch<RoutedMessage>,
    declare: Effect.Effect<void, RabbitError>
  ): Effect.Effect<void, RabbitError> {
    const { connection, topology } = this
    const publishOnce = (messages: Batch<RoutedMessage>) =>
      declare.pipe(
        Effect.andThen(Effect.flatMap(connection.current, ({ unblocked }) => unblocked.await)),
        Effect.andThen(Effect.flatMap(connection.current, (current) => this.send(current, messages))),
        Effect.tapError(topology.invalidateIfMissing),
        Effect.retry({
          schedule: retrySchedule,
          times: RETRIES,
          while: ({ code, kind }) => kind === "not confirmed" || code === NOT_FOUND
        })
      )
    return Effect.gen(function* () {
      const returned = yield* publishOnce(messages)
      if (!Arr.isReadonlyArrayNonEmpty(returned)) return
      topology.invalidate()
      // consumers of a removed queue have to be cancelled before the queue is declared again: the server would move them
      // to the new queue silently, and lose what it delivers to them
      yield* Effect.sleep(CANCELLED_WITHIN)
      const [unroutable] = yield* publishOnce(returned)
      if (unroutable !== undefined) {
        return yield* new RabbitError({
          message: `no queue takes what is published to ${routeOf(unroutable)}`,
          kind: "unroutable"
        })
      }
    })
  }

  /** Returns the failure of a batch with a message that the server refuses, and closes the channel for. */
  private tooLarge(messages: Batch<RoutedMessage>): RabbitError | undefined {
    const max = this.maxMessageSize
    const found = messages.find(({ message }) => message.content.length > max)
    return found === undefined ? undefined : messageTooLarge(found.message.content.length, max)
  }

  /**
   * The failure of a batch that was not confirmed. A message that is too large closes the channel for all batches, and fails
   * its own. If the connection has closed for another reason and the batch was alone on it, the batch may be the cause, and
   * it fails with the connection's error. Otherwise it may be retried: the server also refuses messages while a queue is
   * being declared or moves to another node.
   */
  private failUnconfirmed(
    connection: Connection,
    messages: Batch<RoutedMessage>,
    { alone }: InFlightBatch
  ): Effect.Effect<never, RabbitError> {
    if (!connection.isClosed) return Effect.fail(notConfirmed())
    const closed = Effect.tap(Deferred.await(connection.closed), this.topology.invalidateIfMissing)
    return Effect.flatMap(closed, (reason) => {
      const max = maxMessageSizeOf(reason)
      if (max === undefined) return Effect.fail(alone ? reason : notConfirmed())
      this.maxMessageSize = max
      return Effect.fail(this.tooLarge(messages) ?? notConfirmed())
    })
  }

  /** Sends a batch, waits for its confirms, and returns the messages that the server returned. */
  private send(
    connection: Connection,
    messages: Batch<RoutedMessage>
  ): Effect.Effect<ReadonlyArray<RoutedMessage>, RabbitError> {
    const { inFlight } = this
    const refused = this.maxMessageSize === Infinity ? undefined : this.tooLarge(messages)
    if (refused !== undefined) return Effect.fail(refused)
    return Effect.callback<ReadonlyArray<RoutedMessage>, RabbitError>((resume) => {
      this.recordReturns(connection)
      const batch: InFlightBatch = { returned: new Set(), alone: inFlight.size === 0 }
      for (const other of inFlight) other.alone = false
      inFlight.add(batch)
      let outstanding = messages.length
      let allConfirmed = true
      const onConfirm = (error: unknown) => {
        if (error !== null && error !== undefined) allConfirmed = false
        if (--outstanding > 0) return
        inFlight.delete(batch)
        const { returned } = batch
        if (!allConfirmed) return resume(this.failUnconfirmed(connection, messages, batch))
        resume(
          Effect.succeed(returned.size === 0 ? [] : messages.filter((one) => returned.has(routeOf(one))))
        )
      }
      try {
        connection.writeTogether(() => {
          for (const { exchange, message, routingKey } of messages) {
            connection.channel.publish(exchange, routingKey, message.content, message.properties, onConfirm)
          }
        })
      } catch (cause) {
        // the channel has just closed
        inFlight.delete(batch)
        resume(Effect.fail(fromUnknown(cause)))
      }
    })
  }

  private recordReturns(connection: Connection): void {
    if (this.subscribed.has(connection)) return
    this.subscribed.add(connection)
    connection.channel.on("return", ({ fields }) => {
      for (const { returned } of this.inFlight) returned.add(routeOf(fields))
    })
  }
}
