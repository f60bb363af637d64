/**
 * Messages that this process holds and has not acked, line by line.
 *
 * Acks tell the server in as few frames as possible: all up to a message, where none before it is still held. The
 * server answers no ack; what it has seen of them is known when it answers what was asked after them.
 */
import type { Message } from "amqplib"
import { type Clock, Duration, Effect, PubSub } from "effect"
import { type Connection, syncChannel } from "./Connection.ts"
import type { RabbitError } from "./RabbitError.ts"

/** A message that was delivered here. */
export interface UnackedMessage {
  readonly connection: Connection
  readonly queue: string
  readonly message: Message
  /** What pushed it, if it was pushed. */
  readonly consumer?: UnackedCounter | undefined
}

/** What pushes messages, until so many are unacked. */
export interface UnackedCounter {
  unacked: number
}

/** What a line has delivered. */
class DeliveryTags {
  /** In the order of the tags. */
  private tags = new Set<number>()
  /** How many were ever noted, and the highest tag: they differ while one is on its way to be noted. */
  private noted = 0
  private highest = 0

  note(tag: number): void {
    this.noted++
    if (tag > this.highest) {
      this.highest = tag
      this.tags.add(tag)
    } else {
      // what was asked for is noted after what was pushed behind it
      this.tags = new Set([...this.tags, tag].sort((a, b) => a - b))
    }
  }

  /** Divides tags into those up to which nothing else is unacked, and the others. */
  divide(tags: Set<number>): { readonly upTo: number | undefined; readonly others: ReadonlyArray<number> } {
    let upTo: number | undefined
    if (this.noted === this.highest) {
      for (const tag of this.tags) {
        if (!tags.has(tag)) break
        upTo = tag
      }
    }
    const others: Array<number> = []
    for (const tag of tags) {
      this.tags.delete(tag)
      if (upTo === undefined || tag > upTo) others.push(tag)
    }
    return { upTo, others }
  }
}

/** Acks and puts back by the tag alone. */
const tagged = (deliveryTag: number): Message => ({ fields: { deliveryTag } }) as unknown as Message

/** The server has stored by then what was put back, and counts it. */
const PUT_BACK_NANOS = 50_000_000n

/** The claims of a process. */
export class UnackedMessages {
  private readonly unacked = new WeakMap<Connection, DeliveryTags>()
  private readonly held = new Map<string, UnackedMessage>()
  private readonly epochs = new WeakMap<Connection, number>()
  private epoch = 0
  /** Handles whose line ended. */
  readonly lost: PubSub.PubSub<ReadonlyArray<string>>
  private readonly clock: Clock.Clock
  /** When something was put back last: monotonic nanoseconds. */
  private putBackAt = -PUT_BACK_NANOS

  constructor(lost: PubSub.PubSub<ReadonlyArray<string>>, clock: Clock.Clock) {
    this.lost = lost
    this.clock = clock
  }

  private of(line: Connection): DeliveryTags {
    const found = this.unacked.get(line)
    if (found !== undefined) return found
    const made = new DeliveryTags()
    this.unacked.set(line, made)
    this.epochs.set(line, ++this.epoch)
    return made
  }

  /** Takes note of a delivery. */
  add({ consumer: by, connection: line, message }: UnackedMessage): void {
    this.of(line).note(message.fields.deliveryTag)
    if (by !== undefined) by.unacked++
  }

  /** Makes a delivery a claim, and gives its handle. */
  claim(one: UnackedMessage): string {
    const handle = `${this.epochs.get(one.connection)}.${one.message.fields.deliveryTag}`
    this.held.set(handle, one)
    return handle
  }

  /** `undefined`: it is not held. */
  get(handle: string): UnackedMessage | undefined {
    const one = this.held.get(handle)
    return one === undefined || one.connection.isClosed ? undefined : one
  }

  /** Claims of a queue. */
  count(queue: string): number {
    let count = 0
    for (const one of this.held.values()) if (one.queue === queue) count++
    return count
  }

  /** Forgets the claims of a line that ended, and tells. */
  dropConnection(line: Connection): void {
    const handles: Array<string> = []
    for (const [handle, one] of this.held) if (one.connection === line) handles.push(handle)
    for (const handle of handles) this.held.delete(handle)
    if (handles.length > 0) PubSub.publishUnsafe(this.lost, handles)
  }

  /** Acks claims that are held; answers which were. */
  ack(handles: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<boolean>, RabbitError> {
    return Effect.suspend(() => {
      const taken = handles.map((handle) => this.take(handle))
      const lines = Map.groupBy(
        taken.filter((one) => one !== undefined),
        ({ connection: line }) => line
      )
      for (const [line, some] of lines) {
        const { others, upTo } = this.divide(line, some)
        line.writeTogether(() => {
          if (upTo !== undefined) line.channel.ack(tagged(upTo), true)
          for (const tag of others) line.channel.ack(tagged(tag))
        })
      }
      return Effect.as(
        Effect.forEach(lines.keys(), syncChannel, { discard: true }),
        taken.map((one) => one !== undefined)
      )
    })
  }

  /** Gives deliveries back to the server, claims or not: they are due at once. */
  requeue(some: ReadonlyArray<UnackedMessage>): void {
    if (some.length === 0) return
    this.putBackAt = this.clock.monotonicTimeNanosUnsafe()
    for (const [line, ofLine] of Map.groupBy(some, ({ connection: line }) => line)) {
      if (line.isClosed) continue
      const { others, upTo } = this.divide(line, ofLine)
      if (upTo !== undefined) line.channel.nack(tagged(upTo), true, true)
      for (const tag of others) line.channel.nack(tagged(tag), false, true)
    }
  }

  /** Waits until the server has again what was put back: it answers nothing. */
  readonly awaitRequeued: Effect.Effect<void> = Effect.suspend(() => {
    const left = this.putBackAt + PUT_BACK_NANOS - this.clock.monotonicTimeNanosUnsafe()
    return left <= 0n ? Effect.void : this.clock.sleep(Duration.nanos(left))
  })

  /** Ends a claim here, before the server is told. */
  take(handle: string): UnackedMessage | undefined {
    const one = this.get(handle)
    this.held.delete(handle)
    return one
  }

  private divide(line: Connection, some: ReadonlyArray<UnackedMessage>) {
    for (const { consumer: by } of some) if (by !== undefined) by.unacked--
    return this.of(line).divide(new Set(some.map(({ message }) => message.fields.deliveryTag)))
  }
}
