/** Delivers notifications by NOTIFY of PostgreSQL. */
import { Effect } from "effect"
import type { Database } from "../Database.ts"
import { sleep } from "../sleep.ts"
import type { Channel } from "./notificationProtocol.ts"
import type { Deliver } from "./NotificationSender.ts"

/** The pause before the registrations of a topic are read again if there were none. */
const UNREGISTERED_PAUSE_MILLIS = 50
/** The most topics that are known to have no registration. */
const MAX_UNREGISTERED = 10_000

/** Makes the delivery over a channel. */
export const make = ({ dialect, outsideTransaction, run, table }: Database, channel: Channel): Deliver => {
  const selectRegistered = `SELECT 1 AS one FROM ${table("listeners")}
    WHERE topic = ? AND until > ${dialect.now} AND id <> ? LIMIT 1`
  const notifyRegistered = `SELECT pg_notify(?, payload), set_config('synchronous_commit', 'off', true)
    FROM unnest(?::text[]) AS payloads (payload) WHERE EXISTS (${selectRegistered})`

  /** The topics without a registration of another process when they were last read. */
  const unregistered = new Set<string>()

  const isRegistered = (topic: string) =>
    Effect.map(run(selectRegistered, [topic, channel.source]), (found) => found.length > 0)
  /** Sends payloads, and returns whether another process has registered for the topic. */
  const send = (topic: string, payloads: ReadonlyArray<string>) =>
    Effect.map(
      run(notifyRegistered, [channel.name, payloads, topic, channel.source]),
      (sent) => sent.length > 0
    )
  const note = (topic: string, found: boolean): void => {
    if (found) unregistered.delete(topic)
    else {
      if (unregistered.size >= MAX_UNREGISTERED) unregistered.clear()
      unregistered.add(topic)
    }
  }
  // after a failure too, so that a topic without a registration is not tried at once
  const pause = (topic: string) =>
    Effect.suspend(() => (unregistered.has(topic) ? sleep(UNREGISTERED_PAUSE_MILLIS) : Effect.void))

  return (topic, payloads) =>
    Effect.suspend(() =>
      unregistered.has(topic)
        ? Effect.flatMap(isRegistered(topic), (found) =>
            found ? send(topic, payloads()) : Effect.succeed(false)
          )
        : send(topic, payloads())
    ).pipe(
      outsideTransaction,
      Effect.map((found) => note(topic, found)),
      Effect.exit,
      Effect.flatMap((exit) => Effect.andThen(pause(topic), exit))
    )
}
