/**
 * Claims messages: first those that the server has pushed, then, from queues that no worker of this process consumes, one
 * by one with `basic.get`.
 */
import { Effect } from "effect"
import type { Delivery } from "../BrokerDriver.ts"
import { tryCall } from "./Connection.ts"
import type { DriverContext } from "./DriverContext.ts"
import { readBody, readProperties } from "./OutgoingMessage.ts"
import type { RabbitError } from "./RabbitError.ts"
import type { UnackedMessage } from "./UnackedMessages.ts"

const toDelivery = ({ clock, unacked }: DriverContext, claimed: UnackedMessage): Delivery => {
  const {
    dueAt,
    generation,
    id,
    incarnation,
    oversizedBytes,
    task,
    waitedMillis = 0
  } = readProperties(claimed.message)
  return {
    handle: unacked.claim(claimed),
    id,
    task,
    incarnation,
    generation,
    queue: claimed.queue,
    ageMillis: dueAt === undefined ? 0 : Math.max(0, clock.currentTimeMillisUnsafe() - dueAt),
    waitedMillis,
    body: readBody(claimed.message),
    ...(oversizedBytes === undefined ? {} : { oversizedBytes })
  }
}

/** Fetches up to `max` messages of a queue with `basic.get`. */
const fetchMessages = Effect.fnUntraced(function* (
  { consuming, limited, topology, unacked }: DriverContext,
  queue: string,
  max: number
): Effect.fn.Return<ReadonlyArray<UnackedMessage>, RabbitError> {
  const connection = yield* limited(Effect.andThen(topology.declareQueue(queue), consuming.current))
  const fetched: Array<UnackedMessage> = []
  const fetchOne = Effect.map(
    tryCall(() => connection.channel.get(topology.names.queue(queue))),
    (message) => {
      if (message === false) return false
      const delivered = { connection, queue, message }
      unacked.add(delivered)
      fetched.push(delivered)
      return fetched.length < max
    }
  )
  // uninterruptible: a message that the server has handed out has to be recorded
  yield* Effect.uninterruptible(Effect.repeat(fetchOne, { while: (more) => more })).pipe(
    Effect.onInterrupt(() => Effect.sync(() => unacked.requeue(fetched)))
  )
  return fetched
})

/** Claims up to `max` messages of the queues. */
export const claim = (
  context: DriverContext,
  queues: ReadonlySet<string>,
  max: number
): Effect.Effect<ReadonlyArray<Delivery>, RabbitError> =>
  Effect.suspend(() => {
    const { prefetchBuffer, topology, unacked } = context
    const claimed = [...prefetchBuffer.take(queues, max)]
    const unconsumed = [...queues].filter((queue) => !prefetchBuffer.isConsumed(queue))
    return Effect.forEach(
      unconsumed,
      (queue) =>
        claimed.length < max
          ? fetchMessages(context, queue, max - claimed.length).pipe(
              Effect.tapError(topology.invalidateIfMissing),
              Effect.map((fetched) => claimed.push(...fetched))
            )
          : Effect.void,
      { discard: true }
    ).pipe(
      Effect.map(() => claimed.map((message) => toDelivery(context, message))),
      Effect.onError(() => Effect.sync(() => unacked.requeue(claimed)))
    )
  })
