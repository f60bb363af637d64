/** The backend in Redis: each operation runs one script for a batch. */
import { Effect, Queue, Stream } from "effect"
import type { BackendDriver, TaskRecord } from "../BackendDriver.ts"
import { isTerminal } from "../TaskState.ts"
import { createAcrossShards } from "./createAcrossShards.ts"
import { isPermanent } from "./isPermanent.ts"
import type { ProcessChannel } from "./ProcessChannel.ts"
import type { RedisStoreError } from "./RedisStoreError.ts"
import type { RefusalLog } from "./RefusalLog.ts"
import type { ScriptRunner } from "./ScriptRunner.ts"
import { cancel } from "./scripts/cancel.ts"
import { countDeadLetters } from "./scripts/countDeadLetters.ts"
import { forget } from "./scripts/forget.ts"
import { getDeadLetters } from "./scripts/getDeadLetters.ts"
import { heartbeat } from "./scripts/heartbeat.ts"
import { listDeadLetterIds } from "./scripts/listDeadLetterIds.ts"
import { listDeadLetters } from "./scripts/listDeadLetters.ts"
import { listWorkers } from "./scripts/listWorkers.ts"
import { markPublished } from "./scripts/markPublished.ts"
import { parkMessage } from "./scripts/parkMessage.ts"
import { read } from "./scripts/read.ts"
import { readHistory } from "./scripts/readHistory.ts"
import { removeDeadLetters } from "./scripts/removeDeadLetters.ts"
import { renewRuns } from "./scripts/renewRuns.ts"
import { reopen } from "./scripts/reopen.ts"
import { settle } from "./scripts/settle.ts"
import { start } from "./scripts/start.ts"
import { sweep } from "./scripts/sweep.ts"
import { unregisterWorker } from "./scripts/unregisterWorker.ts"
import { unsubscribe } from "./scripts/unsubscribe.ts"
import { withdraw } from "./scripts/withdraw.ts"

type Driver = BackendDriver<RedisStoreError>

/** Reads and subscribes, and remembers the subscriptions of this process, so that no others are ended. */
const reads = (
  runner: ScriptRunner,
  { process }: ProcessChannel
): Pick<Driver, "read" | "subscribe" | "unsubscribe"> => {
  const readRecords = read(runner)
  const endSubscriptions = unsubscribe(runner, process)
  const subscribed = new Set<string>()
  // A task that ended has no subscribers on the server.
  const dropEnded = Effect.map((records: ReadonlyArray<TaskRecord | undefined>) => {
    for (const record of records) {
      if (record !== undefined && isTerminal(record.state)) subscribed.delete(record.id)
    }
    return records
  })
  return {
    read: (ids) => dropEnded(readRecords(ids)),
    subscribe: (ids, until = "change") => {
      for (const id of ids) subscribed.add(id)
      return dropEnded(readRecords(ids, { process, until }))
    },
    unsubscribe: (ids) => {
      const ended = ids.filter((id) => subscribed.delete(id))
      if (ended.length === 0) return Effect.void
      return Effect.tapError(endSubscriptions(ended), () =>
        Effect.sync(() => ended.forEach((id) => subscribed.add(id)))
      )
    }
  }
}

const hintsOf = (channel: ProcessChannel): Driver["hints"] =>
  Stream.unwrap(
    Effect.gen(function* () {
      const hints = yield* Queue.unbounded<ReadonlyArray<string> | "resync">()
      yield* channel.subscribe({
        onHint: (ids) => void Queue.offerUnsafe(hints, ids),
        onResync: () => void Queue.offerUnsafe(hints, "resync")
      })
      return Stream.fromQueue(hints)
    })
  )

/** Makes the driver; hints come over the channel of the process. */
export const make = (runner: ScriptRunner, channel: ProcessChannel, refusals: RefusalLog): Driver => ({
  name: "redis",
  capabilities: { hints: true, expiresRecords: true, maxBytes: runner.maxBytes },
  isPermanent,
  ...reads(runner, channel),
  readHistory: readHistory(runner),
  hints: hintsOf(channel),
  create: createAcrossShards(runner),
  markPublished: markPublished(runner),
  start: start(runner, refusals, channel.process),
  renew: renewRuns(runner),
  settle: settle(runner),
  parkMessage: parkMessage(runner),
  cancel: cancel(runner),
  withdraw: withdraw(runner),
  forget: forget(runner),
  reopen: reopen(runner),
  getDeadLetters: getDeadLetters(runner),
  listDeadLetters: listDeadLetters(runner),
  listDeadLetterIds: listDeadLetterIds(runner),
  countDeadLetters: countDeadLetters(runner),
  removeDeadLetters: removeDeadLetters(runner),
  heartbeat: heartbeat(runner),
  unregisterWorker: unregisterWorker(runner),
  workers: listWorkers(runner),
  sweep: sweep(runner, channel.process)
})
