/**
 * Claims by task, over a store's claims of the messages of every task.
 *
 * A claim that brought messages of other tasks sets them aside in lanes, together with those beside them at the head of the
 * queue. While nothing but such messages is at the head, the queue is blocked: each claim sets some thousands of them aside. A
 * claim also takes messages of the worker's own tasks from lanes: those that another worker has set aside, and those that the
 * store moves there once a second from behind the others of a blocked queue.
 *
 * So a worker that knows every task of its queues pays for one look for lanes a second, and for nothing in a claim.
 *
 * A store that cannot set aside, and can claim, keeps no message from a worker: the queue is claimed from as if it were not
 * blocked, and the worker puts back what it cannot run.
 */
import { Array as Arr, Cause, Clock, Effect } from "effect"
import type { Batch, ClaimRequest, Delivery } from "../../BrokerDriver.ts"
import { isSameLane, type Lane } from "./lanes.ts"
import type { BackgroundTask, Outages } from "./Outages.ts"

/** How often a worker looks for lanes, and has its messages moved from behind others. */
const LOOK_NANOS = 1_000_000_000n

/** What a store does with lanes. */
export interface LaneOperations<E> {
  /** Whether the store can have that lane: there may be a limit to its name. */
  readonly canExist: (lane: Lane) => boolean
  /** Returns the lanes of these tasks in these queues that have messages. */
  readonly find: (
    queues: ReadonlyArray<string>,
    tasks: ReadonlySet<string>
  ) => Effect.Effect<ReadonlyArray<Lane>, E>
  /**
   * Moves claimed messages of a queue, and the messages of other tasks than `tasks` at its head, to lanes. Returns whether the
   * queue is blocked: the store moved as many as it does in one step.
   */
  readonly setAside: (
    queue: string,
    tasks: ReadonlySet<string>,
    claimed: ReadonlyArray<Delivery>
  ) => Effect.Effect<boolean, E>
  /** Moves the first messages of `tasks` in a queue to lanes, however many of others are before them; returns these lanes. */
  readonly moveOwn?:
    | ((queue: string, tasks: ReadonlySet<string>) => Effect.Effect<ReadonlyArray<Lane>, E>)
    | undefined
}

/** How a store claims. */
export interface ClaimOperations<Request extends ClaimRequest, Claimed, E> {
  /** Claims the messages of every task from the queues of the request. */
  readonly claim: (request: Request) => Effect.Effect<ReadonlyArray<Claimed>, E>
  /** Claims from lanes. Such a claim is not repeated: what an answer that was lost had taken comes again after its lease. */
  readonly claimLanes: (
    request: Omit<ClaimRequest, "queues" | "isRetry">,
    lanes: Batch<Lane>
  ) => Effect.Effect<ReadonlyArray<Claimed>, E>
  readonly deliveryOf: (claimed: Claimed) => Delivery
  /** Wakes the workers of this process for what a claim of the queues left. */
  readonly wakeAgain: (queues: ReadonlyArray<string>) => void
  /** The outages of the store: messages that cannot be set aside are none, and are logged. */
  readonly outages: Outages
}

/** What is known of the queues of one worker. */
interface WorkerView {
  readonly tasks: ReadonlySet<string>
  /** Monotonic nanoseconds; `undefined` before the first look. */
  lookedAt: bigint | undefined
  movedAt: bigint | undefined
  /** The lanes of its tasks that had messages at the last look. */
  lanes: ReadonlyArray<Lane>
  /** The queues that are blocked. */
  readonly blocked: Set<string>
  /** The queues from which nothing could be set aside, the last time that it was tried. */
  readonly failing: Set<string>
  /** Whether the next claim takes from lanes first: in turns, so that neither they nor the queues wait for ever. */
  lanesFirst: boolean
}

const isDue = (since: bigint | undefined, now: bigint) => since === undefined || now - since >= LOOK_NANOS

/** Makes a claim of the messages of the tasks that a request names. */
export const makeClaimByTask = <Request extends ClaimRequest, Claimed, E>(
  operations: LaneOperations<E>,
  { claim, claimLanes, deliveryOf, outages, wakeAgain }: ClaimOperations<Request, Claimed, E>
): ((request: Request) => Effect.Effect<ReadonlyArray<Claimed>, E>) => {
  const lookLog = outages.background("look for messages that were set aside")
  // silent while there are no messages of other tasks
  const setAsideLog = outages.background("set messages of other tasks aside", { mayBeSilent: true })
  const moveLog = outages.background("move messages of known tasks from behind others", { mayBeSilent: true })
  const views = new WeakMap<ReadonlyArray<string>, WorkerView>()

  const viewOf = (names: ReadonlyArray<string>): WorkerView => {
    let view = views.get(names)
    if (view === undefined) {
      const tasks = new Set(names)
      view = {
        tasks,
        lookedAt: undefined,
        movedAt: undefined,
        lanes: [],
        blocked: new Set(),
        failing: new Set(),
        lanesFirst: false
      }
      views.set(names, view)
    }
    return view
  }

  /** Runs a step that a claim can do without, and logs its failure; `undefined`: it failed. */
  const attempt = <A>(log: BackgroundTask, step: Effect.Effect<A, E>): Effect.Effect<A | undefined> =>
    Effect.matchEffect(step, {
      onFailure: (error) => Effect.as(log.failed(Cause.fail(error)), undefined),
      onSuccess: (value) => Effect.as(log.succeeded, value)
    })

  /** Looks for lanes. A look that fails is repeated with the next claim, which does not need it. */
  const refreshLanes = (view: WorkerView, queues: Batch<string>, now: bigint): Effect.Effect<void> =>
    Effect.map(attempt(lookLog, operations.find(queues, view.tasks)), (found) => {
      if (found === undefined) return
      view.lookedAt = now
      view.lanes = found
    })

  /** Has the worker's own messages moved from behind the others of blocked queues, where that is due. */
  const moveOwn = Effect.fnUntraced(function* (view: WorkerView, now: bigint): Effect.fn.Return<void> {
    const queues = new Set([...view.blocked, ...view.failing])
    if (operations.moveOwn === undefined || queues.size === 0 || !isDue(view.movedAt, now)) return
    view.movedAt = now
    for (const queue of queues) {
      const moved = (yield* attempt(moveLog, operations.moveOwn(queue, view.tasks))) ?? []
      const isNew = (lane: Lane) => !view.lanes.some((known) => isSameLane(known, lane))
      view.lanes = [...view.lanes, ...moved.filter(isNew)]
    }
  })

  /** Sets messages of other tasks aside, and has the worker's own moved from behind the rest. */
  const clearQueues = Effect.fnUntraced(function* (
    view: WorkerView,
    foreign: ReadonlyMap<string, ReadonlyArray<Delivery>>,
    now: bigint
  ): Effect.fn.Return<void> {
    const { blocked, failing } = view
    // first, so that it does not wait for what may fail
    yield* moveOwn(view, now)
    for (const [queue, claimed] of foreign) {
      const isBlocked = yield* attempt(setAsideLog, operations.setAside(queue, view.tasks, claimed))
      if (isBlocked === true) blocked.add(queue)
      else blocked.delete(queue)
      if (isBlocked === undefined) failing.add(queue)
      else failing.delete(queue)
    }
    // for queues that are blocked from now on
    yield* moveOwn(view, now)
  })

  /** Claims from the queues that are not blocked and from the lanes of the worker's tasks, in turns. */
  const claimAround = Effect.fnUntraced(function* (
    request: Request,
    view: WorkerView
  ): Effect.fn.Return<ReadonlyArray<Claimed>, E> {
    const { lanes } = view
    const queues = request.queues.filter((queue) => !view.blocked.has(queue))
    const fromLanes = (max: number) =>
      Arr.isReadonlyArrayNonEmpty(lanes) ? claimLanes({ ...request, max }, lanes) : Effect.succeed([])
    const fromQueues = (max: number) =>
      Arr.isReadonlyArrayNonEmpty(queues) ? claim({ ...request, queues, max }) : Effect.succeed([])
    view.lanesFirst = !view.lanesFirst
    const [one, other] = view.lanesFirst ? [fromLanes, fromQueues] : [fromQueues, fromLanes]
    const first = yield* one(request.max)
    const left = request.max - first.length
    if (left <= 0) return first
    // what was claimed is returned even where the rest fails
    const rest = first.length === 0 ? other(left) : Effect.orElseSucceed(other(left), () => [])
    return [...first, ...(yield* rest)]
  })

  /** Returns whether a message is of another task, and can be set aside. */
  const isForeign = (claimed: Claimed, { tasks }: WorkerView): boolean => {
    const { queue, task } = deliveryOf(claimed)
    return task !== undefined && !tasks.has(task) && operations.canExist({ queue, task })
  }

  const setForeignAside = (
    claimed: ReadonlyArray<Claimed>,
    view: WorkerView,
    now: bigint
  ): Effect.Effect<ReadonlyArray<Claimed>> => {
    const foreign = claimed.filter((one) => isForeign(one, view))
    const byQueue = Map.groupBy(foreign.map(deliveryOf), ({ queue }) => queue)
    return Effect.map(clearQueues(view, byQueue, now), () => {
      const { blocked, failing } = view
      const cleared = [...byQueue.keys()].filter((queue) => !failing.has(queue))
      if (cleared.length + blocked.size > 0) wakeAgain([...cleared, ...blocked])
      // the worker puts back what could not be set aside
      return claimed.filter((one) => failing.has(deliveryOf(one).queue) || !isForeign(one, view))
    })
  }

  const claimWithLanes = Effect.fnUntraced(function* (
    request: Request,
    view: WorkerView,
    now: bigint
  ): Effect.fn.Return<ReadonlyArray<Claimed>, E> {
    const { blocked } = view
    if (blocked.size > 0) {
      yield* clearQueues(view, new Map(Array.from(blocked, (queue) => [queue, []])), now)
    }
    const claimed = yield* claimAround(request, view)
    if (claimed.some((one) => isForeign(one, view))) return yield* setForeignAside(claimed, view, now)
    if (blocked.size > 0) wakeAgain([...blocked])
    else if (claimed.length > 0 && view.lanes.length > 0) wakeAgain(view.lanes.map(({ queue }) => queue))
    return claimed
  })

  const claimByTask = (
    request: Request,
    view: WorkerView,
    now: bigint
  ): Effect.Effect<ReadonlyArray<Claimed>, E> => {
    // a repetition asks for what it took from the queues
    const isPlain = request.isRetry === true || (view.lanes.length === 0 && view.blocked.size === 0)
    if (!isPlain) return claimWithLanes(request, view, now)
    return Effect.flatMap(claim(request), (claimed) =>
      claimed.some((one) => isForeign(one, view))
        ? setForeignAside(claimed, view, now)
        : Effect.succeed(claimed)
    )
  }

  return (request) => {
    if (request.tasks === undefined) return claim(request)
    const view = viewOf(request.tasks)
    // no generator: nearly every claim is the store's own, and has nothing to set aside
    return Effect.withFiber((fiber) => {
      const now = fiber.getRef(Clock.Clock).monotonicTimeNanosUnsafe()
      return isDue(view.lookedAt, now)
        ? Effect.andThen(
            refreshLanes(view, request.queues, now),
            Effect.suspend(() => claimByTask(request, view, now))
          )
        : claimByTask(request, view, now)
    })
  }
}
