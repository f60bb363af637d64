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
/** How many messages of a worker's own tasks one step brings from behind those of others. */
const BROUGHT = 1000
/** How many lanes one look finds at most. */
const MAX_LANES = 1000

/** Selects the name of the first lane with a message, from the table of messages by its index of ready ones. */
export const selectFirstLane = (ready: string): string =>
  `SELECT queue FROM ${ready} WHERE state = ${READY} AND queue > '${Lanes.LANES[0]}' AND queue < '${Lanes.LANES[1]}' ORDER BY queue LIMIT 1`

/** The operations on lanes over one database. Those that move need a transaction. */
export interface SqlLanes extends Pick<LaneOperations<StoreError>, "canExist" | "list"> {
  /**
   * Moves the messages of other tasks at the head of a queue to lanes. Returns whether it looked at as many as it does in one
   * step, and none was of `tasks`.
   */
  readonly clearHead: (queue: string, tasks: ReadonlySet<string>) => Effect.Effect<boolean, StoreError>
  readonly bring: NonNullable<LaneOperations<StoreError>["bring"]>
  /** Moves claimed messages that came from lanes to their queues, and returns all of them as they are then. */
  readonly leave: (rows: ReadonlyArray<MessageRow>) => Effect.Effect<ReadonlyArray<MessageRow>, StoreError>
}

interface HeadRow {
  readonly seq: number
  readonly task: string
}

/** Operations over one database. */
export const makeLanes = ({
  dialect: { byIndex, followIndexes, inList, list, maxQueueLength },
  reader,
  run,
  table
}: Database): SqlLanes => {
  const messages = table("messages")
  const ready = byIndex(messages, "messages_ready")
  const selectNext = `SELECT queue FROM ${ready} WHERE state = ${READY} AND queue > ? AND queue < ? ORDER BY queue LIMIT 1`
  const readNext = reader<{ readonly queue: string }>("messages", { queue: Row.text })
  const selectHead = `SELECT seq, task FROM ${ready} WHERE state = ${READY} AND queue = ? ${CLAIM_ORDER} LIMIT ?`
  const selectOf = `SELECT seq, task FROM ${ready} WHERE state = ${READY} AND queue = ? AND ${inList("task", "text")}
    ${CLAIM_ORDER} LIMIT ?`
  const readHead = reader<HeadRow>("messages", { seq: Row.integer, task: Row.text })
  // What a claim has taken meanwhile stays where it is. No index has the condition on the state in this form.
  const enter = `UPDATE ${byIndex(messages)} SET queue = ? WHERE ${inList("seq", "integer")} AND queue = ? AND state <= ${READY}`
  const leaveLane = `UPDATE ${byIndex(messages)} SET queue = ? WHERE ${inList("seq", "integer")}`

  const seqs = (rows: ReadonlyArray<{ readonly seq: number }>) => list(rows.map(({ seq }) => seq))
  const canExist = (lane: Lanes.Lane) => Lanes.encode(lane).length <= maxQueueLength

  /** Moves messages of a queue to the lanes of their tasks. */
  const enterLanes = (queue: string, rows: ReadonlyArray<HeadRow>) =>
    Effect.forEach(
      Map.groupBy(rows, ({ task }) => task),
      ([task, ofTask]) =>
        Effect.as(run(enter, [Lanes.encode({ queue, task }), seqs(ofTask), queue]), { queue, task })
    )

  const find = (select: string, ...params: ReadonlyArray<unknown>) =>
    Effect.andThen(
      followIndexes === undefined ? Effect.void : run(followIndexes),
      Effect.flatMap(run(select, params), readHead)
    )

  const next = Effect.fnUntraced(function* (after: string): Effect.fn.Return<string | undefined, StoreError> {
    const rows = yield* Effect.flatMap(run(selectNext, [after, Lanes.LANES[1]]), readNext)
    return rows[0]?.queue
  })

  return {
    canExist,
    list: Effect.fnUntraced(function* (
      queues: ReadonlyArray<string>
    ): Effect.fn.Return<ReadonlyArray<Lanes.Lane>, StoreError> {
      const found: Array<Lanes.Lane> = []
      let name = yield* next(Lanes.LANES[0])
      while (name !== undefined && found.length < MAX_LANES) {
        const lane = Lanes.decode(name)
        if (lane !== undefined && queues.includes(lane.queue)) found.push(lane)
        name = yield* next(name)
      }
      return found
    }),
    clearHead: Effect.fnUntraced(function* (
      queue: string,
      tasks: ReadonlySet<string>
    ): Effect.fn.Return<boolean, StoreError> {
      const head = yield* find(selectHead, queue, HEAD)
      const others = head.filter(({ task }) => !tasks.has(task))
      yield* enterLanes(
        queue,
        others.filter(({ task }) => canExist({ queue, task }))
      )
      return others.length === HEAD
    }),
    bring: Effect.fnUntraced(function* (
      queue: string,
      tasks: ReadonlySet<string>
    ): Effect.fn.Return<ReadonlyArray<Lanes.Lane>, StoreError> {
      const names = [...tasks].filter((task) => canExist({ queue, task }))
      if (names.length === 0) return []
      const found = yield* find(selectOf, queue, list(names), BROUGHT)
      return yield* enterLanes(queue, found)
    }),
    leave: (rows) => {
      const inLanes = rows.filter(({ queue }) => Lanes.decode(queue) !== undefined)
      return inLanes.length === 0
        ? Effect.succeed(rows)
        : Effect.as(
            Effect.forEach(
              Map.groupBy(inLanes, ({ queue }) => Lanes.queueOf(queue)),
              ([queue, ofQueue]) => run(leaveLane, [queue, seqs(ofQueue)]),
              { discard: true }
            ),
            rows.map((row) => ({ ...row, queue: Lanes.queueOf(row.queue) }))
          )
    }
  }
}
