import { assert, describe, it } from "@effect/vitest"
import type { Message } from "amqplib"
import { Clock, Effect, PubSub } from "effect"
import type { Connection } from "../../src/rabbitmq/Connection.ts"
import { UnackedMessages } from "../../src/rabbitmq/UnackedMessages.ts"

/** Unacked messages over a connection that records the frames that are sent. */
const make = Effect.gen(function* () {
  const frames: Array<string> = []
  const frame =
    (what: string) =>
    ({ fields: { deliveryTag } }: Message, allUpTo = false) =>
      frames.push(`${what} ${allUpTo ? "up to " : ""}${deliveryTag}`)
  const channel = { ack: frame("ack"), nack: frame("nack"), prefetch: () => Promise.resolve({}) }
  const line = {
    isClosed: false,
    channel,
    writeTogether: (send: () => void) => send()
  } as unknown as Connection
  const claims = new UnackedMessages(yield* PubSub.unbounded<ReadonlyArray<string>>(), yield* Clock.Clock)
  const held = (deliveryTag: number) => ({
    connection: line,
    queue: "default",
    message: { fields: { deliveryTag } } as unknown as Message
  })
  const note = (...tags: ReadonlyArray<number>) => {
    for (const tag of tags) claims.add(held(tag))
  }
  const ack = (...tags: ReadonlyArray<number>) => claims.ack(tags.map((tag) => claims.claim(held(tag))))
  const putBack = (...tags: ReadonlyArray<number>) => claims.requeue(tags.map(held))
  return { frames, note, ack, putBack }
})

describe("UnackedMessages", () => {
  it.effect("one frame acks all messages up to a tag where none before it stays unacked", () =>
    Effect.gen(function* () {
      const { ack, frames, note } = yield* make
      note(1, 2, 3, 4, 5)
      yield* ack(3, 1, 2)
      yield* ack(5)
      yield* ack(4)
      assert.deepStrictEqual(frames, ["ack up to 3", "ack 5", "ack up to 4"])
    })
  )

  it.effect("an ack does not cover a message that stays unacked, in whatever order they were added", () =>
    Effect.gen(function* () {
      const { ack, frames, note } = yield* make
      // 4 came from `basic.get`, and is added after 5, which was pushed behind it
      note(1, 2, 3, 5, 4)
      yield* ack(1, 2, 3, 5)
      assert.deepStrictEqual(frames, ["ack up to 3", "ack 5"])
    })
  )

  it.effect("an ack does not cover a message that is still to be added", () =>
    Effect.gen(function* () {
      const { ack, frames, note } = yield* make
      note(1, 2, 4)
      yield* ack(1, 2, 4)
      assert.deepStrictEqual(frames, ["ack 1", "ack 2", "ack 4"])
      note(3)
      yield* ack(3)
      assert.deepStrictEqual(frames.slice(3), ["ack up to 3"])
    })
  )

  it.effect("a requeue groups its frames by the same rule", () =>
    Effect.gen(function* () {
      const { frames, note, putBack } = yield* make
      note(1, 2, 3, 5, 4)
      putBack(1, 2, 3, 5)
      assert.deepStrictEqual(frames, ["nack up to 3", "nack 5"])
    })
  )
})
