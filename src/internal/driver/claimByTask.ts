/**
 * Claims by task, over a store's claims of the messages of every task.
 *
 * A claim that brought messages of other tasks sets them aside in lanes, together with those beside them at the head of the
 * queue. While nothing but such messages is at the head, the queue is blocked: each claim sets some thousands of them aside, and
 * takes the worker's own messages from their lanes, to which a store may bring them from behind the others once a second.
 *
 * So a worker that knows every task of its queues pays for one look for lanes a second, and for nothing in a claim.
 */
import { Clock, Effect } from "effect"
import type { Batch, ClaimRequest, Delivery } from "../../BrokerDriver.ts"
import { isSameLane, type Lane } from "./lanes.ts"

/** How often a worker looks for lanes, and brings messages from behind others. */
const LOOK_NANOS = 1_000_000_000n

/** What a store does with lanes. */
export interface LaneOperations<E> {
  /** Whether the store can have that lane: there may be a limit to its name. */
  readonly canExist: (lane: Lane) => boolean
  /** Returns the lanes of queues that have messages. */
  readonly list: (queues: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<Lane>, E>
  /**
   * Moves claimed messages of a queue, and the messages of other tasks than `tasks` at its head, to lanes. Returns whether it
   * is blocked: the store looked at as many as it does in one step, and none was of `tasks`.
   */
  readonly setAside: (
    queue: string,
    tasks: ReadonlySet<string>,
    claimed: ReadonlyArray<Delivery>
  ) => Effect.Effect<boolean, E>
  /** Moves the first messages of `tasks` in a queue to lanes, however many of others are before them; returns these lanes. */
  readonly bring?:
    | ((queue: string, tasks: ReadonlySet<string>) => Effect.Effect<ReadonlyArray<Lane>, E>)
    | undefined
}

/** How a store claims. */
export interface ClaimOperations<Request extends ClaimRequest, Claimed, E> {
  /** Claims the messages of every task from the queues of the request. */
  readonly claim: (request: Request) => Effect.Effect<ReadonlyArray<Claimed>, E>
  /** Claims from those queues and lanes instead. */
  readonly claimAround: (
    request: Request,
    queues: ReadonlyArray<string>,
    lanes: ReadonlyArray<Lane>
  ) => Effect.Effect<ReadonlyArray<Claimed>, E>
  readonly deliveryOf: (claimed: Claimed) => Delivery
  /** Wakes workers for what a claim of the queues left. */
  readonly wakeAgain: (queues: Batch<string>) => void
}

/** What one worker knows of its queues. */
interface View {
  readonly tasks: ReadonlySet<string>
  /** Monotonic nanoseconds; `undefined` before the first look. */
  lookedAt: bigint | undefined
  broughtAt: bigint | undefined
  /** The lanes of its tasks that had messages at the last look. */
  lanes: ReadonlyArray<Lane>
  /** The queues that are blocked. */
  readonly blocked: Set<string>
}

const isDue = (since: bigint | undefined, now: bigint) => since === undefined || now - since >= LOOK_NANOS

/** Makes a claim of the messages of the tasks that a request names. */
export const makeClaimByTask = <Request extends ClaimRequest, Claimed, E>(
  operations: LaneOperations<E>,
  { claim, claimAround, deliveryOf, wakeAgain }: ClaimOperations<Request, Claimed, E>
): ((request: Request) => Effect.Effect<ReadonlyArray<Claimed>, E>) => {
  const views = new WeakMap<ReadonlyArray<string>, View>()

  const viewOf = (tasks: ReadonlyArray<string>): View => {
    let view = views.get(tasks)
    if (view === undefined) {
      const known = new Set(tasks)
      view = { tasks: known, lookedAt: undefined, broughtAt: undefined, lanes: [], blocked: new Set() }
      views.set(tasks, view)
    }
    return view
  }

  /** Looks for lanes where that is due. */
  const look = Effect.fnUntraced(function* (
    view: View,
    queues: Batch<string>,
    now: bigint
  ): Effect.fn.Return<void, E> {
    if (!isDue(view.lookedAt, now)) return
    view.lookedAt = now
    view.lanes = (yield* operations.list(queues)).filter(({ task }) => view.tasks.has(task))
  })

  /** Sets messages of other tasks aside, and brings the worker's own from behind the rest where that is due. */
  const makeWay = Effect.fnUntraced(function* (
    view: View,
    foreign: ReadonlyMap<string, ReadonlyArray<Delivery>>,
    now: bigint
  ): Effect.fn.Return<void, E> {
    for (const [queue, claimed] of foreign) {
      const isBlocked = yield* operations.setAside(queue, view.tasks, claimed)
      if (isBlocked) view.blocked.add(queue)
      else view.blocked.delete(queue)
    }
    if (operations.bring === undefined || view.blocked.size === 0 || !isDue(view.broughtAt, now)) return
    view.broughtAt = now
    for (const queue of view.blocked) {
      const brought = yield* operations.bring(queue, view.tasks)
      const isNew = (lane: Lane) => !view.lanes.some((known) => isSameLane(known, lane))
      view.lanes = [...view.lanes, ...brought.filter(isNew)]
    }
  })

  const claimByTask = Effect.fnUntraced(function* (
    request: Request,
    view: View
  ): Effect.fn.Return<ReadonlyArray<Claimed>, E> {
    const { isRetry, queues } = request
    const { blocked, tasks } = view
    const now = (yield* Clock.Clock).monotonicTimeNanosUnsafe()
    yield* look(view, queues, now)
    if (blocked.size > 0) yield* makeWay(view, new Map(Array.from(blocked, (queue) => [queue, []])), now)
    // what a claim took is in its queue, wherever it came from, and is found there by a repetition
    const isPlain = isRetry === true || (view.lanes.length === 0 && blocked.size === 0)
    const claimed = isPlain
      ? yield* claim(request)
      : yield* claimAround(
          request,
          queues.filter((queue) => !blocked.has(queue)),
          view.lanes
        )
    const isForeign = (one: Claimed) => {
      const { queue, task } = deliveryOf(one)
      return task !== undefined && !tasks.has(task) && operations.canExist({ queue, task })
    }
    const foreign = claimed.filter(isForeign)
    if (foreign.length > 0) {
      yield* makeWay(
        view,
        Map.groupBy(foreign.map(deliveryOf), ({ queue }) => queue),
        now
      )
    }
    const mayBeMore = foreign.length > 0 || blocked.size > 0 || (!isPlain && claimed.length > 0)
    if (mayBeMore) wakeAgain(queues)
    return foreign.length === 0 ? claimed : claimed.filter((one) => !isForeign(one))
  })

  return (request) =>
    request.tasks === undefined ? claim(request) : claimByTask(request, viewOf(request.tasks))
}
