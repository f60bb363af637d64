/**
 * Records, dead letters and the registry of workers in Redis: each operation is one script for a batch.
 */
import { Array as Arr, Effect, identity, Number as Num, Queue, Stream } from "effect"
import type {
  BackendDriver,
  CancelAnswer,
  DeadLetter,
  Renewed,
  Settled,
  Settlement,
  Start,
  Started
} from "../BackendDriver.ts"
import * as HeartbeatText from "../internal/driver/heartbeatCodec.ts"
import { failureOutcome } from "../internal/worker/runOutcome.ts"
import { PayloadInvalid } from "../TaskFailed.ts"
import { isTerminal } from "../TaskState.ts"
import * as Body from "./BodyText.ts"
import * as Creating from "./createRecords.ts"
import { CorruptKey, HashFields, type StoreError } from "./fieldDecoding.ts"
import { isPermanent } from "./isPermanent.ts"
import { taskIdOfLetter } from "./Keyspace.ts"
import type { ProcessChannel } from "./ProcessChannel.ts"
import * as Record from "./RecordText.ts"
import { type ScriptRunner, encodeGroups, millis, script, type Script } from "./ScriptRunner.ts"
import * as creating from "./scripts/create.ts"
import * as burying from "./scripts/deadLetters.ts"
import * as reading from "./scripts/read.ts"
import * as running from "./scripts/run.ts"
import type { ServerInfo } from "./ServerInfo.ts"
import { toStarted, writeStarts } from "./startCodec.ts"

type Values = ReadonlyArray<string | null>

const decodedOrNull = (fields: HashFields, at: number): string | null => {
  const field = fields.textOrNull(at)
  return field === null ? null : (Record.decode(field) ?? fields.fail(at))
}

const toLetter = (values: Values): DeadLetter => {
  const fields = new HashFields(`of the dead letter ${values[0]}`, burying.FIELDS, values)
  return {
    id: fields.text(0),
    taskId: fields.textOrNull(1),
    task: decodedOrNull(fields, 2),
    generation: fields.integer(3),
    queue: fields.text(4),
    reason: fields.text(5),
    exit: fields.textOrNull(6),
    worker: decodedOrNull(fields, 7),
    body: Body.decode(fields.text(8)),
    attempts: fields.integer(9),
    at: fields.integer(10)
  }
}

/** Reads answers; what does not fit fails the call. */
const reads = <A>(read: () => A): Effect.Effect<A, CorruptKey> =>
  Effect.try({
    try: read,
    catch: (error) =>
      error instanceof CorruptKey ? error : new CorruptKey({ key: "", field: "", value: error })
  })

const toRenewed = (letter: string): Renewed =>
  letter === "H" ? "Held" : letter === "C" ? "CancelRequested" : "Lost"

/** What a letter of `settle` stands for. */
export const toSettled = (letter: string): Settled =>
  letter === "S" ? "Stored" : letter === "C" ? "Cancelled" : "Lost"

/** What a settlement may have in common with others: its outcome, and the time that goes with it. */
export const headOf = ({ outcome }: Settlement): ReadonlyArray<string> => {
  switch (outcome._tag) {
    case "Success":
      return ["S", millis(outcome.retentionMillis)]
    case "Failure":
      return [outcome.deadLetter === undefined ? "F" : "L", millis(outcome.retentionMillis)]
    case "Retry":
      return ["R", millis(outcome.afterMillis)]
    case "Release":
      return ["P", ""]
  }
}

/** Writes the rest of it. */
export const writeSettlement = (
  args: Array<string>,
  { id, outcome, token }: Settlement,
  written = Record.encode(token)
): void => {
  args.push(id, written)
  if (outcome._tag === "Success") args.push(outcome.exit)
  if (outcome._tag !== "Failure") return
  args.push(outcome.exit)
  if (outcome.deadLetter === undefined) return
  const { body, queue, reason, retentionMillis } = outcome.deadLetter
  args.push(reason, queue, Body.encode(body), millis(retentionMillis))
}

/** A place in the order of dead letters. */
interface Place {
  readonly at: string
  readonly member: string
}

const TOP: Place = { at: "+inf", member: "" }

interface Placed extends Place {
  readonly letter: DeadLetter
}

/** As the server orders within a shard. */
const newestFirst = (self: Placed, that: Placed): number =>
  Number(that.at) - Number(self.at) || Buffer.compare(Buffer.from(that.member), Buffer.from(self.member))

/** A letter of a page. One that was edited by hand into something else is shown with what is wrong with it. */
const toPlaced = (values: Values, at: string, member: string): Effect.Effect<Placed> =>
  reads(() => toLetter(values)).pipe(
    Effect.catch((error) =>
      Effect.map(failureOutcome(new PayloadInvalid({ issue: error.message })), ({ exit }): DeadLetter => ({
        id: member.slice(16),
        taskId: values[1] ?? null,
        task: null,
        generation: 0,
        queue: values[4] ?? "",
        reason: "PayloadInvalid",
        exit,
        worker: null,
        body: Body.decode(values[8] ?? ""),
        attempts: 0,
        at: Number(at)
      }))
    ),
    Effect.map((letter) => ({ letter, at, member }))
  )

/** Workers are few, and known by all: they lie in the first shard. */
const REGISTRY = 0

/** Over one keyspace; hints come over the process's channel. */
export const make = (
  calls: ScriptRunner,
  channel: ProcessChannel,
  { clustered }: ServerInfo
): BackendDriver<StoreError> => {
  const { keyspace, run, sharded } = calls
  const made = Creating.make(calls, clustered)
  const markPublished = script(creating.markPublished(clustered))
  const start = script<ReadonlyArray<string>>(running.start(clustered))
  const renew = script<string>(running.renew(clustered))
  const settle = script<string>(running.settle(clustered))
  const park = script(burying.park(clustered))
  const read = script<Values>(reading.read(clustered))
  const unwatch = script(reading.unwatch(clustered))
  const cancel = script<ReadonlyArray<CancelAnswer>>(reading.cancel(clustered))
  const forget = script<ReadonlyArray<string>>(reading.forget(clustered))
  const reopen = script<ReadonlyArray<Values | null>>(burying.reopen(clustered))
  const getDeadLetters = script<ReadonlyArray<Values | null>>(burying.getDeadLetters(clustered))
  const placeOf = script<readonly [at: string | null, member: string | null]>(burying.placeOf)
  const page = script<ReadonlyArray<Values | string>>(burying.page(clustered))
  const count = script<number>(burying.count(clustered))
  const removeDeadLetters = script<string>(burying.remove(clustered))
  const heartbeat = script(reading.heartbeat)
  const farewell = script(reading.farewell)
  const workers = script<ReadonlyArray<string>>(reading.workers)
  const sweep = script<readonly [swept: number, ...foreign: Array<string>]>(reading.sweep(clustered))

  const shards = Arr.range(0, keyspace.shards - 1)
  const idOf = (item: { readonly id: string }) => item.id

  /** What is registered under this channel. The server forgets what ended, and so does this. */
  const watched = new Set<string>()
  const readAll = (ids: ReadonlyArray<string>, asker: string, kind: string) =>
    sharded(ids, identity, (shard, some) =>
      Effect.flatMap(run(read, shard, [asker, kind, ...some]), (answers) =>
        reads(() => {
          let next = some.length
          const progressOf = () => answers[next++] ?? undefined
          return some.map((id, i) => {
            const value = answers[i] ?? null
            if (value === null) return undefined
            const record = Record.parse(`${keyspace.base(shard)}:task:${id}`, id, value, progressOf)
            if (isTerminal(record.state)) watched.delete(id)
            return record
          })
        })
      )
    )

  /** Most starts come without a body, which only a task that ends here needs. */
  const startSome = (
    shard: number,
    starts: ReadonlyArray<Start>,
    withBodies: boolean
  ): Effect.Effect<ReadonlyArray<Started>, StoreError> =>
    Effect.flatMap(run(start, shard, writeStarts(starts, channel.process, withBodies)), (answers) => {
      const lost = starts.filter((_, i) => answers[i] === "L")
      if (lost.length === 0) return Effect.succeed(answers.map(toStarted))
      return Effect.map(startSome(shard, lost, true), (ends) => {
        let next = 0
        return answers.map((answer) => (answer === "L" ? ends[next++]! : toStarted(answer)))
      })
    })

  const letters = (ids: ReadonlyArray<string>, of: Script<ReadonlyArray<Values | null>>) =>
    sharded(ids, taskIdOfLetter, (shard, some) =>
      Effect.flatMap(run(of, shard, some), (found) =>
        reads(() => found.map((values) => (values === null ? undefined : toLetter(values))))
      )
    )

  /** The place of the last letter of a page; if it is gone, all are seen again. */
  const placeAfter = (last: string | undefined): Effect.Effect<Place, StoreError> =>
    last === undefined
      ? Effect.succeed(TOP)
      : Effect.map(run(placeOf, keyspace.shardOf(taskIdOfLetter(last)), [last]), ([at, member]) =>
          at === null || member === null ? TOP : { at, member }
        )

  return {
    name: "redis",
    capabilities: { hints: true, expiresRecords: true },
    isPermanent,
    create: made.create,
    markPublished: (ids) =>
      Effect.asVoid(
        sharded(ids, identity, (shard, some) => Effect.as(run(markPublished, shard, some), some))
      ),
    start: (starts) => sharded(starts, idOf, (shard, some) => startSome(shard, some, false)),
    renew: (renewals) =>
      sharded(renewals, idOf, (shard, some) =>
        Effect.map(
          run(
            renew,
            shard,
            some.flatMap(({ id, leaseMillis, progress, token }) => [
              id,
              Record.encode(token),
              millis(leaseMillis),
              progress ?? ""
            ])
          ),
          (answers) => Array.from(answers, toRenewed)
        )
      ),
    settle: (settlements) =>
      sharded(settlements, idOf, (shard, some) =>
        Effect.map(run(settle, shard, encodeGroups(some, headOf, writeSettlement)), (answers) =>
          Array.from(answers, toSettled)
        )
      ),
    parkMessage: (parked) =>
      Effect.asVoid(
        sharded(
          parked,
          ({ deadLetterId }) => taskIdOfLetter(deadLetterId),
          (shard, some) =>
            Effect.as(
              run(
                park,
                shard,
                some.flatMap(({ body, deadLetterId, exit, queue, reason, retentionMillis }) => [
                  deadLetterId,
                  millis(retentionMillis),
                  queue,
                  reason,
                  exit,
                  Body.encode(body)
                ])
              ),
              some
            )
        )
      ),
    read: (ids) => readAll(ids, "", ""),
    subscribe: (ids, until) => {
      for (const id of ids) watched.add(id)
      return readAll(ids, channel.process, until === "end" ? "e" : "a")
    },
    unsubscribe: (ids) => {
      const registered = ids.filter((id) => watched.delete(id))
      if (registered.length === 0) return Effect.void
      return sharded(registered, identity, (shard, some) =>
        Effect.as(run(unwatch, shard, [channel.process, ...some]), some)
      ).pipe(
        Effect.tapError(() => Effect.sync(() => registered.forEach((id) => watched.add(id)))),
        Effect.asVoid
      )
    },
    hints: Stream.unwrap(
      Effect.gen(function* () {
        const news = yield* Queue.unbounded<ReadonlyArray<string> | "resync">()
        yield* channel.subscribe({
          onHint: (ids) => void Queue.offerUnsafe(news, ids),
          onResync: () => void Queue.offerUnsafe(news, "resync")
        })
        return Stream.fromQueue(news)
      })
    ),
    cancel: (ids) => sharded(ids, identity, (shard, some) => run(cancel, shard, some)),
    forget: (ids) =>
      Effect.asVoid(
        sharded(ids, identity, (shard, some) =>
          Effect.as(Effect.flatMap(run(forget, shard, some), made.free), some)
        )
      ),
    reopen: (ids) => letters(ids, reopen),
    getDeadLetters: (ids) => letters(ids, getDeadLetters),
    listDeadLetters: ({ after, limit, task }) =>
      Effect.flatMap(placeAfter(after), ({ at, member }) =>
        Effect.forEach(
          shards,
          (shard) =>
            run(page, shard, [task === undefined ? "" : Record.encode(task), `${limit}`, at, member]),
          {
            concurrency: "unbounded"
          }
        )
      ).pipe(
        Effect.flatMap((pages) =>
          Effect.forEach(
            pages.flatMap((found) => Arr.chunksOf(found, 3)),
            ([values, at, member]) => toPlaced(values as Values, at as string, member as string)
          )
        ),
        Effect.map((found) =>
          found
            .sort(newestFirst)
            .slice(0, limit)
            .map(({ letter }) => letter)
        )
      ),
    countDeadLetters: (task) =>
      Effect.map(
        Effect.forEach(
          shards,
          (shard) => run(count, shard, [task === undefined ? "" : Record.encode(task)]),
          { concurrency: "unbounded" }
        ),
        Num.sumAll
      ),
    removeDeadLetters: (ids) =>
      sharded(ids, taskIdOfLetter, (shard, some) =>
        Effect.map(run(removeDeadLetters, shard, some), (answers) =>
          Array.from(answers, (answer) => answer === "1")
        )
      ),
    heartbeat: (worker, ttlMillis) =>
      Effect.flatMap(Effect.orDie(HeartbeatText.encode(worker)), (description) =>
        Effect.asVoid(run(heartbeat, REGISTRY, [worker.id, millis(ttlMillis), description]))
      ),
    unregisterWorker: (worker) => Effect.asVoid(run(farewell, REGISTRY, [worker])),
    workers: Effect.flatMap(run(workers, REGISTRY, []), (texts) =>
      HeartbeatText.decodeAll(
        texts.map((text) => {
          const [startedAt, seenAt, , ...rest] = text.split(" ")
          return { info: rest.join(" "), startedAt: Number(startedAt), seenAt: Number(seenAt) }
        })
      )
    ),
    sweep: Effect.fnUntraced(function* (limit) {
      let total = 0
      for (const shard of shards) {
        if (total >= limit) break
        const [swept, ...foreign] = yield* run(sweep, shard, [`${limit - total}`])
        total += swept
        yield* made.free(foreign)
      }
      return total
    })
  }
}
