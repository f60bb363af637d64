/**
 * Counts and purges the messages of a queue. Both look into the delay queues as well, in the order in which messages pass
 * through them: a message that moves meanwhile may be counted twice, but is not missed.
 */
import type { Message } from "amqplib"
import { Array as Arr, Effect, Number as Num } from "effect"
import type { PurgedMessage, QueueCounts } from "../BrokerDriver.ts"
import { syncChannel, withChannel } from "./Connection.ts"
import type { DriverContext } from "./DriverContext.ts"
import { readProperties } from "./OutgoingMessage.ts"
import type { RabbitError } from "./RabbitError.ts"

/** Each queue takes a call to the server, as does each of its delay queues. Queues are counted in parts, each within `callTimeout`. */
const QUEUES_PER_PART = 50
/** Parts at a time. Each has a channel, of which a connection has at most 2,047 by default. */
const PARTS_AT_ONCE = 8

/** Returns for each queue the server's queues that hold its messages: the longest delay first, the queue itself last. */
const serverQueuesOf = Effect.fnUntraced(function* (
  { topology }: DriverContext,
  queues: ReadonlyArray<string>
): Effect.fn.Return<ReadonlyArray<ReadonlyArray<string>>, RabbitError> {
  const { names } = topology
  yield* Effect.forEach(queues, (queue) => topology.declareQueue(queue), { discard: true })
  const exponents = yield* topology.delayExponents(queues)
  return queues.map((queue, i) => [
    ...exponents[i]!.map((exponent) => names.delayQueue(queue, exponent)),
    names.queue(queue)
  ])
})

/** Counts the messages of some queues over one channel. */
const countPart = Effect.fnUntraced(function* (
  context: DriverContext,
  queues: ReadonlyArray<string>
): Effect.fn.Return<ReadonlyArray<QueueCounts>, RabbitError> {
  const { consuming, prefetchBuffer, unacked } = context
  const serverQueues = yield* serverQueuesOf(context, queues)
  yield* unacked.awaitRequeued
  const connection = yield* consuming.current
  const claimedBefore = queues.map((queue) => unacked.count(queue))
  const counted = yield* withChannel(connection, async (channel) => {
    const counted: Array<Array<number>> = []
    for (const names of serverQueues) {
      const counts: Array<number> = []
      for (const name of names) counts.push((await channel.checkQueue(name)).messageCount)
      counted.push(counts)
    }
    return counted
  })
  // what the server had pushed when it counted has arrived after this
  yield* syncChannel(connection)
  return queues.map((queue, i) => {
    const counts = counted[i]!
    return {
      ready: (counts.pop() ?? 0) + prefetchBuffer.count(queue),
      delayed: Num.sumAll(counts),
      claimed: Math.max(claimedBefore[i]!, unacked.count(queue))
    }
  })
})

/**
 * Counts the messages of queues. Of the claimed ones, only those of this process are known. `callTimeout` bounds the count of
 * 50 queues, so that a count of many takes longer, and fails with the first part that is too slow.
 */
export const counts = (
  context: DriverContext,
  queues: ReadonlyArray<string>
): Effect.Effect<ReadonlyArray<QueueCounts>, RabbitError> =>
  Effect.map(
    Effect.forEach(
      Arr.chunksOf(queues, QUEUES_PER_PART),
      (part) =>
        Effect.tapError(context.limited(countPart(context, part)), context.topology.invalidateIfMissing),
      { concurrency: PARTS_AT_ONCE }
    ),
    Arr.flatten
  )

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
export const purge = (
  context: DriverContext,
  queue: string,
  limit: number,
  maxMillis: number
): Effect.Effect<ReadonlyArray<PurgedMessage>, RabbitError> =>
  Effect.gen(function* () {
    const { prefetchBuffer, unacked } = context
    const [serverQueues = []] = yield* serverQueuesOf(context, [queue])
    const removed = yield* removeFrom(context, serverQueues, limit, maxMillis)
    const buffered = prefetchBuffer.takeForPurge(queue, limit - removed.length)
    yield* unacked.ack(buffered.map((message) => unacked.claim(message)))
    return [...removed, ...buffered.map(({ message }) => toPurged(message))]
  }).pipe(context.limited, Effect.tapError(context.topology.invalidateIfMissing))
