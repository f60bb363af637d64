/**
 * Counts and purges the messages of a queue. Both look into the delay queues as well, in the order in which messages pass
 * through them: a message that moves meanwhile may be counted twice, but is not missed.
 */
import type { Message } from "amqplib"
import { Effect, Number as Num } from "effect"
import type { PurgedMessage, QueueCounts } from "../BrokerDriver.ts"
import { syncChannel, withChannel } from "./Connection.ts"
import type { DriverContext } from "./DriverContext.ts"
import { readProperties } from "./OutgoingMessage.ts"
import type { RabbitError } from "./RabbitError.ts"

/** Returns the server's queues that hold messages of a queue: the longest delay first, the queue itself last. */
const serverQueuesOf = Effect.fnUntraced(function* (
  { topology }: DriverContext,
  queue: string
): Effect.fn.Return<ReadonlyArray<string>, RabbitError> {
  const { names } = topology
  yield* topology.declareQueue(queue)
  const exponents = yield* topology.delayExponents(queue)
  return [...exponents.map((exponent) => names.delayQueue(queue, exponent)), names.queue(queue)]
})

/** Counts the messages of a queue. Of the claimed ones, only those of this process are known. */
export const count = Effect.fnUntraced(function* (
  context: DriverContext,
  queue: string
): Effect.fn.Return<QueueCounts, RabbitError> {
  const { consuming, prefetchBuffer, unacked } = context
  const names = yield* serverQueuesOf(context, queue)
  yield* unacked.awaitRequeued
  const connection = yield* consuming.current
  const claimedBefore = unacked.count(queue)
  const counts = yield* withChannel(connection, async (channel) => {
    const counts: Array<number> = []
    for (const name of names) counts.push((await channel.checkQueue(name)).messageCount)
    return counts
  })
  // what the server had pushed when it counted has arrived after this
  yield* syncChannel(connection)
  return {
    ready: (counts.pop() ?? 0) + prefetchBuffer.count(queue),
    delayed: Num.sumAll(counts),
    claimed: Math.max(claimedBefore, unacked.count(queue))
  }
})

const toPurged = (message: Message): PurgedMessage => {
  const { generation = 0, id = "", incarnation = "" } = readProperties(message)
  return { id, incarnation, generation }
}

/** Removes up to `limit` messages, stops after `maxMillis`, and returns what it removed. */
const removeFrom = (
  { clock, consuming }: DriverContext,
  names: ReadonlyArray<string>,
  limit: number,
  maxMillis: number
): Effect.Effect<ReadonlyArray<PurgedMessage>, RabbitError> =>
  Effect.flatMap(consuming.current, (connection) =>
    withChannel(connection, async (channel) => {
      const deadline = clock.monotonicTimeNanosUnsafe() + BigInt(Math.round(maxMillis * 1e6))
      const purged: Array<PurgedMessage> = []
      let last: Message | undefined
      for (const name of names) {
        while (purged.length < limit && clock.monotonicTimeNanosUnsafe() < deadline) {
          const message = await channel.get(name)
          if (message === false) break
          last = message
          purged.push(toPurged(message))
        }
      }
      // up to here, a channel that closes returns all of them to the server
      if (last !== undefined) channel.ack(last, true)
      await channel.prefetch(0)
      return purged
    })
  )

/** Removes up to `limit` unclaimed messages of a queue, buffered ones last, and returns them. */
export const purge = Effect.fnUntraced(function* (
  context: DriverContext,
  queue: string,
  limit: number,
  maxMillis: number
): Effect.fn.Return<ReadonlyArray<PurgedMessage>, RabbitError> {
  const { prefetchBuffer, unacked } = context
  const removed = yield* removeFrom(context, yield* serverQueuesOf(context, queue), limit, maxMillis)
  const buffered = prefetchBuffer.takeForPurge(queue, limit - removed.length)
  yield* unacked.ack(buffered.map((message) => unacked.claim(message)))
  return [...removed, ...buffered.map(({ message }) => toPurged(message))]
})
