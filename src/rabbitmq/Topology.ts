/**
 * Declares the queues, exchanges and bindings of a prefix: for each queue a quorum queue of that name, the delay queues in
 * which its delayed messages wait, and a queue for rejected messages. Each is declared when it is first needed, since
 * every quorum queue costs the server resources, and none is ever removed.
 *
 * Delayed messages are dead-lettered from queue to queue with the strategy "at-least-once": the server removes a message
 * from one queue only once the next one holds it.
 *
 * A passive declaration of a missing queue leaves an error in the server's log. So each delay queue has a mark, a binding
 * of the marks exchange, and a mandatory message that is returned says that the mark is missing.
 */
import type { Channel, ConfirmChannel, Message } from "amqplib"
import { Array as Arr, Effect, Option, Schedule, type Scope } from "effect"
import type { Batch } from "../BrokerDriver.ts"
import { withChannel } from "./Connection.ts"
import * as delayQueues from "./delayQueues.ts"
import { encodeWord, markRoutingKey, Names } from "./Names.ts"
import { OncePerName } from "./OncePerName.ts"
import { NOT_FOUND, RabbitError } from "./RabbitError.ts"
import type { ReconnectingConnection } from "./ReconnectingConnection.ts"

/** A routing key has at most 255 bytes, of which the words of the delay take 54. */
const MAX_NAME_BYTES = 190
/** A server that is short of memory answers no publish, so a probe for marks is bounded. */
const PROBE_TIMEOUT = "1 second"
/** How often, and for how long, a process waits for a delay queue that another process declares. */
const OTHER_DECLARER = { pollInterval: "50 millis", timeout: "1 second" } as const
/** The reply code where another connection has the exclusive queue. */
const RESOURCE_LOCKED = 405

/**
 * RabbitMQ 4 drops a message after 20 deliveries by default. The number of deliveries means nothing here, as it also
 * counts messages that are merely requeued.
 */
const quorumQueue = { "x-queue-type": "quorum", "x-delivery-limit": 2 ** 31 - 1 }

/** The delay queue of a queue, for messages that wait 2^exponent milliseconds. */
interface DelayQueue {
  readonly queue: string
  readonly exponent: number
}

/** Declares what calls need, once per process and name. */
export class Topology {
  readonly names: Names
  private readonly consuming: ReconnectingConnection
  private readonly publishing: ReconnectingConnection
  private readonly declared: OncePerName<RabbitError>
  /** The exchange that routes messages whose delay is over. */
  private readonly dueExchange: string

  /** Declarations that are under way when `scope` closes are interrupted. */
  constructor(
    connections: { readonly consuming: ReconnectingConnection; readonly publishing: ReconnectingConnection },
    prefix: string,
    scope: Scope.Scope
  ) {
    this.names = new Names(prefix)
    this.consuming = connections.consuming
    this.publishing = connections.publishing
    this.declared = new OncePerName(scope)
    this.dueExchange = this.names.delayExchange(delayQueues.LOWEST_EXPONENT - 1)
  }

  /** Declares the queue and binds it to the exchange of due messages. Removing the queue removes the binding as well. */
  declareQueue(queue: string): Effect.Effect<void, RabbitError> {
    return Effect.suspend(() => {
      const name = this.names.queue(queue)
      if (Buffer.byteLength(name) > MAX_NAME_BYTES) {
        return Effect.fail(
          new RabbitError({
            message: `the name of the queue is too long for RabbitMQ: ${name} has more than ${MAX_NAME_BYTES} bytes`,
            kind: "bad name"
          })
        )
      }
      return this.declareOnce(name, async (channel) => {
        await channel.assertQueue(name, { durable: true, arguments: quorumQueue })
        await channel.assertExchange(this.dueExchange, "topic")
        await channel.bindQueue(
          name,
          this.dueExchange,
          delayQueues.bindingPattern(undefined, false, encodeWord(queue))
        )
      })
    })
  }

  /** Declares the queue for rejected messages. */
  declareRejectedQueue(queue: string): Effect.Effect<void, RabbitError> {
    const name = this.names.rejectedQueue(queue)
    return this.declareOnce(name, (channel) =>
      channel.assertQueue(name, { durable: true, arguments: quorumQueue })
    )
  }

  /** Declares what messages with that rounded delay pass through. */
  declareDelay(queue: string, rounded: number): Effect.Effect<void, RabbitError> {
    return Effect.all(
      [
        this.declareMarks,
        this.declareDelayExchanges,
        this.declareQueue(queue),
        Effect.forEach(
          delayQueues.exponentsOf(rounded),
          (exponent) => this.declareDelayQueue(queue, exponent),
          { concurrency: "unbounded" }
        )
      ],
      { discard: true }
    )
  }

  /** Returns for each queue the exponents of its delay queues that exist, whichever process declared them. */
  delayExponents(
    queues: ReadonlyArray<string>
  ): Effect.Effect<ReadonlyArray<ReadonlyArray<number>>, RabbitError> {
    return Effect.gen({ self: this }, function* () {
      const isDeclared = ({ exponent, queue }: DelayQueue) =>
        this.declared.has(this.names.delayQueue(queue, exponent))
      const all = queues.map((queue) =>
        delayQueues.exponents.map((exponent): DelayQueue => ({ queue, exponent }))
      )
      const unknown = all
        .map((ofQueue) => ofQueue.filter((one) => !isDeclared(one)))
        .filter(Arr.isArrayNonEmpty)
      if (unknown.length > 0) {
        yield* this.declareMarks
        for (const { exponent, queue } of yield* this.findMarked(unknown)) {
          this.declared.add(this.names.delayQueue(queue, exponent))
        }
      }
      return all.map((ofQueue) => ofQueue.filter(isDeclared).map(({ exponent }) => exponent))
    })
  }

  /** Forgets what is declared, so that it is declared again: something that was there is missing. */
  readonly invalidate = (): void => this.declared.clear()

  /**
   * Forgets what is declared where a call has failed because something is missing. After any other failure, such as a call
   * that took too long, everything is still there.
   */
  readonly invalidateIfMissing = ({ code }: RabbitError): Effect.Effect<void> =>
    Effect.sync(() => {
      if (code === NOT_FOUND) this.invalidate()
    })

  private declareOnce(
    name: string,
    declare: (channel: Channel) => Promise<unknown>
  ): Effect.Effect<void, RabbitError> {
    return this.declared.run(name, this.onConsumingConnection(declare))
  }

  private onConsumingConnection(
    use: (channel: Channel) => Promise<unknown>
  ): Effect.Effect<unknown, RabbitError> {
    return Effect.flatMap(this.consuming.current, (connection) => withChannel(connection, use))
  }

  private get declareMarks(): Effect.Effect<void, RabbitError> {
    const { discardQueue, marksExchange } = this.names
    return this.declareOnce(marksExchange, async (channel) => {
      await channel.assertExchange(marksExchange, "direct")
      await channel.assertQueue(discardQueue, {
        durable: true,
        arguments: { "x-queue-type": "classic", "x-max-length": 0 }
      })
    })
  }

  /** Each exchange passes to the next lower one what does not wait for its own exponent. */
  private get declareDelayExchanges(): Effect.Effect<void, RabbitError> {
    const { names } = this
    return this.declareOnce(names.delayExchange(delayQueues.exponents[0]!), async (channel) => {
      await channel.assertExchange(this.dueExchange, "topic")
      for (const exponent of delayQueues.exponents.toReversed()) {
        await channel.assertExchange(names.delayExchange(exponent), "topic")
        await channel.bindExchange(
          names.delayExchange(exponent - 1),
          names.delayExchange(exponent),
          delayQueues.bindingPattern(exponent, false, "*")
        )
      }
    })
  }

  /**
   * Declares a delay queue. RabbitMQ 3.10 shows a queue to others before it knows the queue's TTL, and a message that
   * arrives that early waits for ever, with all messages behind it. So one process at a time declares it, the one that
   * holds an exclusive queue, and the bindings that lead to it come last.
   */
  private declareDelayQueue(queue: string, exponent: number): Effect.Effect<void, RabbitError> {
    const { names } = this
    const name = names.delayQueue(queue, exponent)
    const exclusiveQueue = `${name}.making`
    const declare = this.onConsumingConnection(async (channel) => {
      await channel.assertQueue(exclusiveQueue, { exclusive: true, durable: false, expires: 10_000 })
      await channel.assertQueue(name, {
        durable: true,
        arguments: {
          ...quorumQueue,
          "x-message-ttl": 2 ** exponent,
          "x-dead-letter-exchange": names.delayExchange(exponent - 1),
          "x-dead-letter-strategy": "at-least-once",
          "x-overflow": "reject-publish"
        }
      })
      await channel.bindQueue(
        name,
        names.delayExchange(exponent),
        delayQueues.bindingPattern(exponent, true, encodeWord(queue))
      )
      await channel.bindQueue(names.discardQueue, names.marksExchange, markRoutingKey(queue, exponent))
      await channel.deleteQueue(exclusiveQueue)
    })
    const isMarked = Effect.map(this.findMarked([[{ queue, exponent }]]), ({ length }) => length > 0)
    const untilMarked = Effect.repeat(isMarked, {
      schedule: Schedule.spaced(OTHER_DECLARER.pollInterval),
      until: (marked) => marked
    })
    const declareOrWait: Effect.Effect<unknown, RabbitError> = Effect.catchIf(
      declare,
      ({ code }) => code === RESOURCE_LOCKED,
      // the other declarer may die, and the server keeps its exclusive queue for a moment
      () =>
        Effect.flatMap(Effect.timeoutOption(untilMarked, OTHER_DECLARER.timeout), (marked) =>
          Option.isSome(marked) ? Effect.void : declareOrWait
        )
    )
    return this.declared.run(name, declareOrWait)
  }

  /**
   * Returns those of the delay queues that have a mark; none while nothing can be published. One message per group asks
   * whether any of the group has one, and only then one for each of them: most queues have no delayed messages.
   */
  private findMarked(
    groups: ReadonlyArray<Batch<DelayQueue>>
  ): Effect.Effect<ReadonlyArray<DelayQueue>, RabbitError> {
    return Effect.flatMap(this.publishing.current, (connection) =>
      withChannel(connection, async (channel) => {
        const marked = await findMarkedGroups(channel, this.names.marksExchange, groups)
        const alone = marked.filter(({ length }) => length === 1)
        const several = marked.filter(({ length }) => length > 1)
        const found = await findMarkedGroups(
          channel,
          this.names.marksExchange,
          several.flatMap((group) => group.map((one) => Arr.of(one)))
        )
        return [...alone, ...found].flat()
      })
    ).pipe(Effect.timeoutOrElse({ duration: PROBE_TIMEOUT, orElse: () => Effect.succeed([]) }))
  }
}

/** Returns those of the groups in which at least one delay queue has a mark. */
const findMarkedGroups = async (
  channel: ConfirmChannel,
  marksExchange: string,
  groups: ReadonlyArray<Batch<DelayQueue>>
): Promise<ReadonlyArray<Batch<DelayQueue>>> => {
  if (groups.length === 0) return []
  const returned = new Set<string>()
  const onReturn = ({ fields }: Message) => returned.add(fields.routingKey)
  const keyOf = ({ exponent, queue }: DelayQueue) => markRoutingKey(queue, exponent)
  channel.on("return", onReturn)
  for (const [first, ...others] of groups) {
    // the server routes by the keys in `CC` as well, and returns what none of them routes
    channel.publish(marksExchange, keyOf(first), Buffer.alloc(0), { mandatory: true, CC: others.map(keyOf) })
  }
  await channel.waitForConfirms()
  channel.off("return", onReturn)
  return groups.filter(([first]) => !returned.has(keyOf(first)))
}
