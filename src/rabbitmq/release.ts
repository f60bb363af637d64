/**
 * Puts claimed messages back, or parks them as rejected. A message that changes is published again and then acked: a
 * crash in between leaves both copies, never none.
 */
import { Array as Arr, Effect } from "effect"
import type { Batch, Release } from "../BrokerDriver.ts"
import type { DriverContext } from "./DriverContext.ts"
import { fromDelivered, type OutgoingMessage, readProperties } from "./OutgoingMessage.ts"
import type { RabbitError } from "./RabbitError.ts"
import type { UnackedMessage } from "./UnackedMessages.ts"

/** Publishes a copy for each claim that is still held, then acks those claims. */
const replace = <Item extends { readonly handle: string }>(
  { unacked }: DriverContext,
  items: ReadonlyArray<Item>,
  publish: (messages: Batch<OutgoingMessage>) => Effect.Effect<void, RabbitError>,
  toCopy: (claimed: UnackedMessage, item: Item) => OutgoingMessage
): Effect.Effect<void, RabbitError> =>
  Effect.suspend(() => {
    const byHandle = new Map(items.map((item) => [item.handle, item]))
    const handles: Array<string> = []
    const copies: Array<OutgoingMessage> = []
    for (const [handle, item] of byHandle) {
      const claimed = unacked.get(handle)
      if (claimed === undefined) continue
      handles.push(handle)
      copies.push(toCopy(claimed, item))
    }
    return Arr.isArrayNonEmpty(copies)
      ? Effect.andThen(publish(copies), Effect.asVoid(unacked.ack(handles)))
      : Effect.void
  })

const releasedCopy = (
  { message, queue }: UnackedMessage,
  { afterMillis, body, preserveDueTime }: Release,
  now: number
): OutgoingMessage => {
  if (preserveDueTime !== true) {
    return fromDelivered(message, { queue, delayMillis: afterMillis, dueAt: now + afterMillis, body })
  }
  const { dueAt = now, waitedMillis = 0 } = readProperties(message)
  return fromDelivered(message, {
    queue,
    delayMillis: afterMillis,
    // a message that was delivered is due, whatever its properties say
    dueAt: Math.min(dueAt, now),
    waitedMillis: waitedMillis + Math.max(0, afterMillis),
    body
  })
}

/** Requeues claims; skips those that are no longer held. */
export const requeue = ({ unacked }: DriverContext, handles: ReadonlyArray<string>): void =>
  unacked.requeue(handles.map((handle) => unacked.take(handle)).filter((claimed) => claimed !== undefined))

/** Puts messages back, behind those that are due. */
export const release = (context: DriverContext, releases: Batch<Release>): Effect.Effect<void, RabbitError> =>
  Effect.suspend(() => {
    const now = context.clock.currentTimeMillisUnsafe()
    return context.limited(
      replace(context, releases, context.publisher.publish, (claimed, one) => releasedCopy(claimed, one, now))
    )
  })

/** Parks messages in the queues for rejected messages, with the reason in a header. */
export const reject = (
  context: DriverContext,
  rejections: Batch<{ readonly handle: string; readonly reason: string }>
): Effect.Effect<void, RabbitError> =>
  context.limited(
    replace(context, rejections, context.publisher.reject, ({ message, queue }, { reason }) =>
      fromDelivered(message, { queue, delayMillis: 0, reason })
    )
  )
