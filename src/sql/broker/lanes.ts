/**
 * Moves messages to lanes and back: see `internal/driver/lanes.ts`.
 *
 * Only messages that are ready lie in lanes. A claim of a lane moves what it takes back to its queue, in the same transaction,
 * so that whatever becomes of the claim happens there.
 */
import { Effect } from "effect"
import type { LaneOperations } from "../../internal/driver/claimByTask.ts"
import * as Lanes from "../../internal/driver/lanes.ts"
import type { Database, StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import { CLAIM_ORDER, type MessageRow, READY } from "./MessageRow.ts"

/** How many messages at the head of a queue one step looks at. */
const HEAD = 4000
/** How many messages of a worker's own tasks one step moves from behind those of others. */
const OWN = 1000
/** How many lanes are listed at most. */
const MAX_LISTED = 1000
/** How many lanes are looked for by their names; beyond that all lanes are listed. */
const MAX_NAMED = 2000

/** Selects the name of the first lane with a message, from the table of messages by its index of ready ones. */
export const selectFirstLane = (ready: string): string =>
  `SELECT queue FROM ${ready} WHERE state = ${READY} AND queue > '${Lanes.LANES[0]}' AND queue < '${Lanes.LANES[1]}' ORDER BY queue LIMIT 1`

/** The operations on lanes over one database. Those that move need a transaction. */
export interface SqlLanes extends Pick<LaneOperations<StoreError>, "canExist" | "find"> {
  /** Returns lanes of queues that have messages, of whichever task; some, where there are more than a thousand lanes. */
  readonly list: (queues: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<Lanes.Lane>, StoreError>
  /** Moves the messages of other tasks at the head of a queue to lanes; returns whether that were as many as in one step. */
  readonly clearHead: (queue: string, tasks: ReadonlySet<string>) => Effect.Effect<boolean, StoreError>
  readonly moveOwn: NonNullable<LaneOperations<StoreError>["moveOwn"]>
  /** Moves claimed messages that came from lanes to their queues, and returns all of them as they are then. */
  readonly moveToQueues: (
    rows: ReadonlyArray<MessageRow>
  ) => Effect.Effect<ReadonlyArray<MessageRow>, StoreError>
  /** Makes the statements of a transaction follow indexes: statistics of a lane are of another time. */
  readonly followIndexes: Effect.Effect<void, StoreError>
}

interface HeadRow {
  readonly seq: number
  readonly task: string
}

/** Operations over one database. */
export const makeLanes = ({
  batched,
  dialect: { byIndex, followIndexes, inList, list, maxQueueLength, skipLocked },
  reader,
  run,
  table
}: Database): SqlLanes => {
  const messages = table("messages")
  const ready = byIndex(messages, "messages_ready")
  const selectFirst = selectFirstLane(ready)
  const selectNext = `SELECT queue FROM ${ready} WHERE state = ${READY} AND queue > ? AND queue < '${Lanes.LANES[1]}'
    ORDER BY queue LIMIT 1`
  const selectNamed = batched(
    { queue: "text" },
    (batch) => `SELECT batch.queue AS queue FROM ${batch}
      WHERE batch.queue IS NOT NULL AND EXISTS (SELECT 1 FROM ${ready} WHERE queue = batch.queue AND state = ${READY})`
  )
  const readNames = reader<{ readonly queue: string }>("messages", { queue: Row.text })
  const selectHead = `SELECT seq, task FROM ${ready} WHERE state = ${READY} AND queue = ? ${CLAIM_ORDER} LIMIT ? ${skipLocked}`
  const selectOwn = `SELECT seq, task FROM ${ready} WHERE state = ${READY} AND queue = ? AND ${inList("task", "text")}
    ${CLAIM_ORDER} LIMIT ?`
  const readHead = reader<HeadRow>("messages", { seq: Row.integer, task: Row.text })
  // What a claim has taken meanwhile stays where it is, and a lapsed claim ends. No index has this form of the condition on
  // the state.
  const enter = `UPDATE ${byIndex(messages)} SET queue = ?, claim = NULL
    WHERE ${inList("seq", "integer")} AND queue = ? AND state <= ${READY}`
  const leave = `UPDATE ${byIndex(messages)} SET queue = ? WHERE ${inList("seq", "integer")}`

  const seqs = (rows: ReadonlyArray<{ readonly seq: number }>) => list(rows.map(({ seq }) => seq))
  const canExist = (lane: Lanes.Lane) => Lanes.encode(lane).length <= maxQueueLength
  const follow = followIndexes === undefined ? Effect.void : Effect.asVoid(run(followIndexes))

  /** Moves messages of a queue to the lanes of their tasks. */
  const moveToLanes = (queue: string, rows: ReadonlyArray<HeadRow>) =>
    Effect.forEach(
      Map.groupBy(rows, ({ task }) => task),
      ([task, ofTask]) =>
        Effect.as(run(enter, [Lanes.encode({ queue, task }), seqs(ofTask), queue]), { queue, task })
    )
  const find = (select: string, ...params: ReadonlyArray<unknown>) =>
    Effect.andThen(follow, Effect.flatMap(run(select, params), readHead))
  const first = (select: string, ...params: ReadonlyArray<unknown>) =>
    Effect.map(Effect.flatMap(run(select, params), readNames), (rows) => rows[0]?.queue)

  const listLanes = Effect.fnUntraced(function* (
    queues: ReadonlyArray<string>
  ): Effect.fn.Return<ReadonlyArray<Lanes.Lane>, StoreError> {
    const wanted = new Set(queues)
    const found: Array<Lanes.Lane> = []
    let name = yield* first(selectFirst)
    for (let listed = 0; name !== undefined && listed < MAX_LISTED; listed++) {
      const lane = Lanes.decode(name)
      if (lane !== undefined && wanted.has(lane.queue)) found.push(lane)
      name = yield* first(selectNext, name)
    }
    return found
  })

  return {
    canExist,
    list: listLanes,
    find: Effect.fnUntraced(function* (
      queues: ReadonlyArray<string>,
      tasks: ReadonlySet<string>
    ): Effect.fn.Return<ReadonlyArray<Lanes.Lane>, StoreError> {
      if ((yield* first(selectFirst)) === undefined) return []
      if (queues.length * tasks.size > MAX_NAMED) {
        return (yield* listLanes(queues)).filter(({ task }) => tasks.has(task))
      }
      const names = queues.flatMap((queue) => Array.from(tasks, (task) => Lanes.encode({ queue, task })))
      const rows = yield* selectNamed([...new Set(names)].map((queue) => ({ queue })))
      return (yield* readNames(rows)).flatMap(({ queue }) => Lanes.decode(queue) ?? [])
    }),
    clearHead: Effect.fnUntraced(function* (
      queue: string,
      tasks: ReadonlySet<string>
    ): Effect.fn.Return<boolean, StoreError> {
      const head = yield* find(selectHead, queue, HEAD)
      const others = head.filter(({ task }) => !tasks.has(task) && canExist({ queue, task }))
      yield* moveToLanes(queue, others)
      return others.length === HEAD
    }),
    moveOwn: Effect.fnUntraced(function* (
      queue: string,
      tasks: ReadonlySet<string>
    ): Effect.fn.Return<ReadonlyArray<Lanes.Lane>, StoreError> {
      const names = [...tasks].filter((task) => canExist({ queue, task }))
      if (names.length === 0) return []
      return yield* moveToLanes(queue, yield* find(selectOwn, queue, list(names), OWN))
    }),
    moveToQueues: (rows) => {
      if (!rows.some(({ queue }) => Lanes.isName(queue))) return Effect.succeed(rows)
      const inLanes = rows.filter(({ queue }) => Lanes.decode(queue) !== undefined)
      return Effect.as(
        Effect.forEach(
          Map.groupBy(inLanes, ({ queue }) => Lanes.queueOf(queue)),
          ([queue, ofQueue]) => run(leave, [queue, seqs(ofQueue)]),
          { discard: true }
        ),
        rows.map((row) => ({ ...row, queue: Lanes.queueOf(row.queue) }))
      )
    },
    followIndexes: follow
  }
}
