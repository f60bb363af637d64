/**
 * The messages that were delivered to this process and are not acked yet, and the claims among them.
 *
 * Acks take as few frames as possible: one with the `multiple` flag for all messages up to a delivery tag, where none
 * before it stays unacked. The server answers no ack, so a round trip on the same channel says that it has handled them.
 */
import type { Message } from "amqplib"
import { type Clock, Duration, Effect, PubSub } from "effect"
import { type Connection, syncChannel } from "./Connection.ts"
import { DeliveryTags } from "./DeliveryTags.ts"
import type { RabbitError } from "./RabbitError.ts"

/** A message that was delivered to this process. */
export interface UnackedMessage {
  readonly connection: Connection
  readonly queue: string
  readonly message: Message
  /** The consumer to which it was pushed; `undefined` for a message that `basic.get` fetched. */
  readonly consumer?: UnackedCounter | undefined
}

/** Counts the unacked messages of a consumer. */
export interface UnackedCounter {
  unacked: number
}

/** A message to ack or nack: amqplib reads the delivery tag alone. */
const withTag = (deliveryTag: number): Message => ({ fields: { deliveryTag } }) as unknown as Message

/** The server has stored and counts a requeued message after this time. */
const REQUEUE_NANOS = 50_000_000n

/** The unacked messages of a process, over all its connections. */
export class UnackedMessages {
  private readonly tags = new WeakMap<Connection, DeliveryTags>()
  private readonly claims = new Map<string, UnackedMessage>()
  /** A number for each connection, since delivery tags start at 1 on each. */
  private readonly connectionNumbers = new WeakMap<Connection, number>()
  private lastConnectionNumber = 0
  /** Publishes the handles of claims whose connection closed. */
  readonly lost: PubSub.PubSub<ReadonlyArray<string>>
  private readonly clock: Clock.Clock
  /** The time of the last requeue: monotonic nanoseconds. */
  private requeuedAt = -REQUEUE_NANOS

  constructor(lost: PubSub.PubSub<ReadonlyArray<string>>, clock: Clock.Clock) {
    this.lost = lost
    this.clock = clock
  }

  /** Records a delivery. */
  add({ connection, consumer, message }: UnackedMessage): void {
    this.tagsOf(connection).add(message.fields.deliveryTag)
    if (consumer !== undefined) consumer.unacked++
  }

  /** Makes a delivery a claim, and returns its handle. */
  claim(delivered: UnackedMessage): string {
    const handle = `${this.connectionNumbers.get(delivered.connection)}.${delivered.message.fields.deliveryTag}`
    this.claims.set(handle, delivered)
    return handle
  }

  /** Returns the message of a claim; `undefined` if the claim is not held. */
  get(handle: string): UnackedMessage | undefined {
    const claimed = this.claims.get(handle)
    return claimed === undefined || claimed.connection.isClosed ? undefined : claimed
  }

  /** Removes a claim here, before the server knows of it, and returns its message. */
  take(handle: string): UnackedMessage | undefined {
    const claimed = this.get(handle)
    this.claims.delete(handle)
    return claimed
  }

  /** Counts the claims of a queue. */
  count(queue: string): number {
    let count = 0
    for (const claimed of this.claims.values()) if (claimed.queue === queue) count++
    return count
  }

  /** Removes the claims of a closed connection, and publishes their handles to `lost`. */
  dropConnection(connection: Connection): void {
    const handles: Array<string> = []
    for (const [handle, claimed] of this.claims) if (claimed.connection === connection) handles.push(handle)
    for (const handle of handles) this.claims.delete(handle)
    if (handles.length > 0) PubSub.publishUnsafe(this.lost, handles)
  }

  /** Acks claims, and waits until the server has handled the acks. Returns for each handle whether it was held. */
  ack(handles: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<boolean>, RabbitError> {
    return Effect.suspend(() => {
      const taken = handles.map((handle) => this.take(handle))
      const byConnection = Map.groupBy(
        taken.filter((one) => one !== undefined),
        ({ connection }) => connection
      )
      for (const [connection, messages] of byConnection) {
        const { multipleUpTo, single } = this.removeTags(connection, messages)
        connection.writeTogether(() => {
          if (multipleUpTo !== undefined) connection.channel.ack(withTag(multipleUpTo), true)
          for (const tag of single) connection.channel.ack(withTag(tag))
        })
      }
      return Effect.as(
        Effect.forEach(byConnection.keys(), syncChannel, { discard: true }),
        taken.map((one) => one !== undefined)
      )
    })
  }

  /** Returns deliveries to the server (nack with `requeue`), which makes them due at once. */
  requeue(messages: ReadonlyArray<UnackedMessage>): void {
    if (messages.length === 0) return
    this.requeuedAt = this.clock.monotonicTimeNanosUnsafe()
    for (const [connection, some] of Map.groupBy(messages, ({ connection }) => connection)) {
      if (connection.isClosed) continue
      const { multipleUpTo, single } = this.removeTags(connection, some)
      if (multipleUpTo !== undefined) connection.channel.nack(withTag(multipleUpTo), true, true)
      for (const tag of single) connection.channel.nack(withTag(tag), false, true)
    }
  }

  /** Waits until the server counts what was requeued. It answers no nack, so the wait is a fixed time. */
  readonly awaitRequeued: Effect.Effect<void> = Effect.suspend(() => {
    const left = this.requeuedAt + REQUEUE_NANOS - this.clock.monotonicTimeNanosUnsafe()
    return left <= 0n ? Effect.void : this.clock.sleep(Duration.nanos(left))
  })

  private tagsOf(connection: Connection): DeliveryTags {
    const known = this.tags.get(connection)
    if (known !== undefined) return known
    const tags = new DeliveryTags()
    this.tags.set(connection, tags)
    this.connectionNumbers.set(connection, ++this.lastConnectionNumber)
    return tags
  }

  private removeTags(connection: Connection, messages: ReadonlyArray<UnackedMessage>) {
    for (const { consumer } of messages) if (consumer !== undefined) consumer.unacked--
    return this.tagsOf(connection).remove(new Set(messages.map(({ message }) => message.fields.deliveryTag)))
  }
}
