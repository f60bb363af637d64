/**
 * What there is on the server: for each queue a quorum queue of that name, the queues in which its delayed messages
 * wait, and one for what was rejected. Each is made when it is first needed, since every quorum queue has its price on
 * the server, and none is ever removed.
 *
 * Delayed messages are dead-lettered from queue to queue "at least once": the server lets go of one only when the
 * next queue has it.
 *
 * Whether a queue is there can be asked without a trace in the server's log: its making is marked by a binding, and a
 * message that the binding does not route comes back.
 */
import type { Channel } from "amqplib"
import { Deferred, Effect, Exit, Option, Schedule, type Scope } from "effect"
import { type ReconnectingConnection, withChannel } from "./Connection.ts"
import * as Delay from "./delayQueues.ts"
import { RabbitError } from "./RabbitError.ts"

/** A routing key has 255 bytes, and 54 of them say how a message is delayed. */
const LONGEST_NAME = 190
/** While a server is short of memory it does not answer what is published. */
const ASK = "1 second"
/** Another process makes a queue: how often it is asked for, and for how long it is waited. */
const MAKING = { every: "50 millis", atMost: "1 second" } as const
/** Another connection has what only one can have. */
const RESOURCE_LOCKED = 405

/**
 * From version 4 on the server drops what was delivered more than 20 times, unless it is told otherwise. How often a
 * message was put back says nothing here.
 */
const quorum = { "x-queue-type": "quorum", "x-delivery-limit": 2 ** 31 - 1 }

/** A name as one word of a routing key. */
const wordOf = (name: string): string =>
  encodeURIComponent(name.toWellFormed()).replaceAll(
    /[.!'()*]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`
  )

/** Names under one prefix. */
export class Names {
  readonly prefix: string

  constructor(prefix: string) {
    this.prefix = wordOf(prefix)
  }

  /** Where messages wait that are due. */
  queue(queue: string): string {
    return `${this.prefix}.${wordOf(queue)}`
  }

  /** Where rejected messages lie. */
  rejectedQueue(queue: string): string {
    return `${this.queue(queue)}.rejected`
  }

  /** Where delayed messages wait for that power of two. */
  delayQueue(queue: string, exponent: number): string {
    return `${this.queue(queue)}.delay.${exponent}`
  }

  /** Leads to the queue of that power of two, or past it. */
  delayExchange(exponent: number): string {
    return exponent < Delay.LOWEST_EXPONENT ? `${this.prefix}.due` : `${this.prefix}.delay.${exponent}`
  }

  /** Has a binding for each queue for delayed messages. */
  get marksExchange(): string {
    return `${this.prefix}.delay.marks`
  }

  /** Where what is sent to ask for a mark is dropped. */
  get discardQueue(): string {
    return `${this.prefix}.delay.nowhere`
  }
}

const mark = (queue: string, exponent: number): string => `${exponent}.${wordOf(queue)}`

/** Makes what is needed. */
export interface Topology {
  readonly names: Names
  readonly declareQueue: (queue: string) => Effect.Effect<void, RabbitError>
  /** What messages need that are delayed so long. */
  readonly declareDelay: (queue: string, rounded: number) => Effect.Effect<void, RabbitError>
  /** The exponents of the queues for delayed messages that there are, whoever made them. */
  readonly delayExponents: (queue: string) => Effect.Effect<ReadonlyArray<number>, RabbitError>
  readonly declareRejectedQueue: (queue: string) => Effect.Effect<void, RabbitError>
  /** Something is gone that was there: somebody has removed it. */
  readonly invalidate: () => void
}

/** Over one prefix. What is being made is given up with the scope. */
export const make = Effect.fnUntraced(function* (
  {
    consuming,
    publishing
  }: { readonly consuming: ReconnectingConnection; readonly publishing: ReconnectingConnection },
  prefix: string
): Effect.fn.Return<Topology, never, Scope.Scope> {
  const scope = yield* Effect.scope
  const names = new Names(prefix)
  const made = new Set<string>()
  const making = new Map<string, Deferred.Deferred<void, RabbitError>>()

  /**
   * Makes what is not made, and not by two at once: the server tells the second that a queue is there before it works.
   */
  const once = (name: string, make: Effect.Effect<unknown, RabbitError>): Effect.Effect<void, RabbitError> =>
    Effect.suspend(() => {
      if (made.has(name)) return Effect.void
      const underway = making.get(name)
      if (underway !== undefined) return Deferred.await(underway)
      const done = Deferred.makeUnsafe<void, RabbitError>()
      making.set(name, done)
      // whoever asked first may leave
      return make.pipe(
        Effect.asVoid,
        Effect.onExit((exit) => {
          making.delete(name)
          if (Exit.isSuccess(exit)) made.add(name)
          return Deferred.done(done, exit)
        }),
        Effect.forkIn(scope),
        Effect.andThen(Deferred.await(done))
      )
    })

  const declaring = (declare: (channel: Channel) => Promise<unknown>): Effect.Effect<unknown, RabbitError> =>
    Effect.flatMap(consuming.current, (line) => withChannel(line, declare))

  const due = names.delayExchange(Delay.LOWEST_EXPONENT - 1)
  /** With its way in for what was delayed: whoever removes a queue removes that too. */
  const queue = (queue: string) =>
    Effect.suspend(() => {
      const name = names.queue(queue)
      return Buffer.byteLength(name) > LONGEST_NAME
        ? Effect.fail(
            new RabbitError({
              message: `the name of the queue is too long for RabbitMQ: ${name} has more than ${LONGEST_NAME} bytes`,
              kind: "bad name"
            })
          )
        : once(
            name,
            declaring(async (channel) => {
              await channel.assertQueue(name, { durable: true, arguments: quorum })
              await channel.assertExchange(due, "topic")
              await channel.bindQueue(name, due, Delay.bindingPattern(undefined, false, wordOf(queue)))
            })
          )
    })

  // #region Delays

  const marks = once(
    names.marksExchange,
    declaring(async (channel) => {
      await channel.assertExchange(names.marksExchange, "direct")
      await channel.assertQueue(names.discardQueue, {
        durable: true,
        arguments: { "x-queue-type": "classic", "x-max-length": 0 }
      })
    })
  )

  /** Each leads to the next lower one what has nothing to wait for in it. */
  const exchanges = once(
    names.delayExchange(Delay.exponents[0]!),
    declaring(async (channel) => {
      await channel.assertExchange(due, "topic")
      for (const exponent of Delay.exponents.toReversed()) {
        await channel.assertExchange(names.delayExchange(exponent), "topic")
        const past = Delay.bindingPattern(exponent, false, "*")
        await channel.bindExchange(names.delayExchange(exponent - 1), names.delayExchange(exponent), past)
      }
    })
  )

  /** Asks for marks, of which the server gives back what it does not know. */
  const askFor = (queue: string, exponents: ReadonlyArray<number>) =>
    Effect.flatMap(publishing.current, (line) =>
      withChannel(line, async (channel) => {
        const unknown = new Set<string>()
        channel.on("return", ({ fields }) => unknown.add(fields.routingKey))
        for (const exponent of exponents) {
          channel.publish(names.marksExchange, mark(queue, exponent), Buffer.alloc(0), { mandatory: true })
        }
        await channel.waitForConfirms()
        return exponents.filter((exponent) => !unknown.has(mark(queue, exponent)))
      })
    ).pipe(
      // while nothing can be published, what this process knows has to do
      Effect.timeoutOrElse({ duration: ASK, orElse: () => Effect.succeed([]) })
    )

  /**
   * A queue is there for others before it knows for how long messages wait in it, and a message that comes so early
   * waits for ever, with all behind it. So one process at a time makes it, the one that has a queue which only one
   * connection can have, and nothing leads to it before it is made.
   */
  const wait = (queue: string, exponent: number) => {
    const name = names.delayQueue(queue, exponent)
    const making = `${name}.making`
    const make = declaring(async (channel) => {
      await channel.assertQueue(making, { exclusive: true, durable: false, expires: 10_000 })
      await channel.assertQueue(name, {
        durable: true,
        arguments: {
          ...quorum,
          "x-message-ttl": 2 ** exponent,
          "x-dead-letter-exchange": names.delayExchange(exponent - 1),
          "x-dead-letter-strategy": "at-least-once",
          "x-overflow": "reject-publish"
        }
      })
      await channel.bindQueue(
        name,
        names.delayExchange(exponent),
        Delay.bindingPattern(exponent, true, wordOf(queue))
      )
      await channel.bindQueue(names.discardQueue, names.marksExchange, mark(queue, exponent))
      await channel.deleteQueue(making)
    })
    const isMade = Effect.map(askFor(queue, [exponent]), ({ length }) => length > 0)
    const untilMade = Effect.repeat(isMade, {
      schedule: Schedule.spaced(MAKING.every),
      until: (made) => made
    })
    const makeOrWait: Effect.Effect<unknown, RabbitError> = Effect.catchIf(
      make,
      ({ code }) => code === RESOURCE_LOCKED,
      // who makes it may vanish, and the server go on with it for a moment
      () =>
        Effect.flatMap(Effect.timeoutOption(untilMade, MAKING.atMost), (made) =>
          Option.isSome(made) ? Effect.void : makeOrWait
        )
    )
    return once(name, makeOrWait)
  }

  const delay = (of: string, rounded: number) =>
    Effect.all([
      marks,
      exchanges,
      queue(of),
      Effect.forEach(Delay.exponentsOf(rounded), (exponent) => wait(of, exponent), {
        concurrency: "unbounded"
      })
    ])

  const delays = (queue: string) =>
    Effect.gen(function* () {
      const isMade = (exponent: number) => made.has(names.delayQueue(queue, exponent))
      const unknown = Delay.exponents.filter((exponent) => !isMade(exponent))
      if (unknown.length > 0) {
        yield* marks
        for (const exponent of yield* askFor(queue, unknown)) made.add(names.delayQueue(queue, exponent))
      }
      return Delay.exponents.filter(isMade)
    })

  // #endregion

  return {
    names,
    declareQueue: queue,
    declareDelay: (queue, rounded) => Effect.asVoid(delay(queue, rounded)),
    delayExponents: delays,
    declareRejectedQueue: (queue) => {
      const name = names.rejectedQueue(queue)
      return once(
        name,
        declaring((channel) => channel.assertQueue(name, { durable: true, arguments: quorum }))
      )
    },
    invalidate: () => made.clear()
  }
})

/** The routing key by which a delayed message finds its way. */
export const delayRoutingKey = (rounded: number, queue: string): string =>
  Delay.routingKey(rounded, wordOf(queue))
