/** The backend in Redis: each operation runs one script for a batch. */
import { Effect, Queue, Result, Stream } from "effect"
import type { BackendDriver, Hint, TaskRecord } from "../BackendDriver.ts"
import { isTerminal } from "../TaskState.ts"
import { createAcrossShards } from "./createAcrossShards.ts"
import { isPermanent } from "./isPermanent.ts"
import type { Keyspace } from "./Keyspace.ts"
import type { ProcessChannel, TaskChange } from "./ProcessChannel.ts"
import * as RecordText from "./RecordText.ts"
import type { RedisStoreError } from "./RedisStoreError.ts"
import type { RefusalLog } from "./RefusalLog.ts"
import type { ScriptRunner } from "./ScriptRunner.ts"
import { cancel } from "./scripts/cancel.ts"
import { countDeadLetters } from "./scripts/countDeadLetters.ts"
import { forget } from "./scripts/forget.ts"
import { getDeadLetters } from "./scripts/getDeadLetters.ts"
import { getDocuments } from "./scripts/getDocuments.ts"
import { heartbeat } from "./scripts/heartbeat.ts"
import { CHANGED, ENDED } from "./scripts/lib/subscribers.ts"
import { listDeadLetterIds } from "./scripts/listDeadLetterIds.ts"
import { listDeadLetters } from "./scripts/listDeadLetters.ts"
import { listDocuments } from "./scripts/listDocuments.ts"
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
import { writeDocuments } from "./scripts/writeDocuments.ts"
import type { ServerSubscriptions } from "./ServerSubscriptions.ts"

type Driver = BackendDriver<RedisStoreError>

/** Creates and reads records, and subscribes to them. */
const records = (
  runner: ScriptRunner,
  process: string,
  subscriptions: ServerSubscriptions
): Pick<Driver, "create" | "read" | "subscribe" | "unsubscribe"> => {
  const createRecords = createAcrossShards(runner, process)
  const readRecords = read(runner)
  const endSubscriptions = unsubscribe(runner, process)
  const removeEnded = Effect.map((found: ReadonlyArray<TaskRecord | undefined>) => {
    subscriptions.removeEnded(found)
    return found
  })
  return {
    create: (created) =>
      Effect.suspend(() => {
        subscriptions.addCreated(created)
        return createRecords(created)
      }),
    read: (ids) => removeEnded(readRecords(ids)),
    subscribe: (ids, until = "change") => {
      subscriptions.add(ids)
      return removeEnded(readRecords(ids, { process, until }))
    },
    unsubscribe: (ids) => {
      const subscribed = ids.filter((id) => subscriptions.remove(id))
      if (subscribed.length === 0) return Effect.void
      return Effect.tapError(endSubscriptions(subscribed), () =>
        Effect.sync(() => subscriptions.add(subscribed))
      )
    }
  }
}

/** Decodes what comes over the channel of the process. */
const hintsOf = (
  channel: ProcessChannel,
  keyspace: Keyspace,
  subscriptions: ServerSubscriptions
): Driver["hints"] => {
  const toHint = ({ id, known }: TaskChange): Hint => {
    if (known === CHANGED) return id
    subscriptions.remove(id)
    if (known === ENDED) return id
    const key = `${keyspace.base(keyspace.shardOf(id))}:task:${id}`
    const record = Result.try(() => RecordText.decode(key, id, known, () => undefined))
    // a text that does not fit is not of this store; what the record holds is read
    return Result.isSuccess(record) && isTerminal(record.success.state) ? record.success : id
  }
  return Stream.unwrap(
    Effect.gen(function* () {
      const hints = yield* Queue.unbounded<ReadonlyArray<Hint> | "resync">()
      yield* channel.subscribe({
        onHint: (changes) => void Queue.offerUnsafe(hints, changes.map(toHint)),
        onResync: () => {
          subscriptions.clear()
          Queue.offerUnsafe(hints, "resync")
        }
      })
      return Stream.fromQueue(hints)
    })
  )
}

/** Makes the driver; hints come over the channel of the process. */
export const make = (
  runner: ScriptRunner,
  channel: ProcessChannel,
  subscriptions: ServerSubscriptions,
  refusals: RefusalLog
): Driver => ({
  name: "redis",
  capabilities: { hints: true, subscribesCreated: true, expiresRecords: true, maxBytes: runner.maxBytes },
  isPermanent,
  ...records(runner, channel.process, subscriptions),
  readHistory: readHistory(runner),
  hints: hintsOf(channel, runner.keyspace, subscriptions),
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
  documents: { get: getDocuments(runner), write: writeDocuments(runner), list: listDocuments(runner) },
  sweep: sweep(runner, channel.process)
})
