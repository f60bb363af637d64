/** The messages of the memory store, by queue and by claim. */
import type {
  ClaimRequest,
  Delivery,
  Envelope,
  PurgedMessage,
  QueueCounts,
  Release,
  SetAsideClaim,
  SetAsideTask
} from "../BrokerDriver.ts"
import { isClaimedBefore, MemoryQueue, type Message } from "./MemoryQueue.ts"

/** The last claim of a worker, for the request that repeats it. */
interface LastClaim {
  readonly claimId: string | undefined
  readonly handles: ReadonlyArray<string>
}

const EMPTY: QueueCounts = { ready: 0, delayed: 0, claimed: 0, oldestMillis: 0 }
/** How many tasks of a queue are listed at most. */
const SET_ASIDE_TASKS = 100
/** How many messages a claim sets aside at most. It searches those behind them. */
const SET_ASIDE_LIMIT = 10_000

/** Returns the first messages of some tasks that are ready, at most `max`, by looking at all messages. */
const firstOf = (
  queues: ReadonlyArray<MemoryQueue>,
  tasks: ReadonlySet<string>,
  max: number
): ReadonlyArray<Message> => {
  const found: Array<Message> = []
  for (const { ready } of queues) {
    for (const message of ready) if (tasks.has(message.envelope.task)) found.push(message)
  }
  return found.sort((one, other) => (isClaimedBefore(one, other) ? -1 : 1)).slice(0, max)
}

export class MemoryMessages {
  private readonly queues = new Map<string, MemoryQueue>()
  /** Messages by the handle of their last claim. */
  private readonly claims = new Map<string, Message>()
  private readonly lastClaims = new Map<string, LastClaim>()
  /** The tasks of workers, by the arrays of their claims. */
  private readonly taskSets = new WeakMap<ReadonlyArray<string>, ReadonlySet<string>>()
  private published = 0
  private claimed = 0

  /** Returns a queue, which is made if it is new. */
  queue(name: string): MemoryQueue {
    let queue = this.queues.get(name)
    if (queue === undefined) this.queues.set(name, (queue = new MemoryQueue(name)))
    return queue
  }

  publish(envelope: Envelope, now: number): void {
    const queue = this.queue(envelope.queue)
    const at = now + envelope.delayMillis
    const message: Message = {
      envelope,
      queue,
      order: ++this.published,
      body: envelope.body,
      dueAt: at,
      waitsSince: at,
      wakeAt: at,
      handle: undefined,
      heap: queue.ready,
      position: -1
    }
    queue.put(message, now)
  }

  /** Claims the first messages of all the queues; a repeated request returns first what it still holds. */
  claim(request: ClaimRequest, now: number): ReadonlyArray<Delivery> {
    const { claimId, leaseMillis, max, worker } = request
    const queues = this.promoted(request.queues, now)
    const held = this.heldBy(request)
    const deliveries = held
      .slice(0, max)
      .map((handle) => this.deliver(this.claims.get(handle)!, handle, leaseMillis, now))
    const tasks = this.taskSet(request.tasks)
    let putAside = 0
    while (deliveries.length < max) {
      let best: Message | undefined
      for (const queue of queues) {
        const first = queue.first(tasks)
        if (first !== undefined && (best === undefined || isClaimedBefore(first, best))) best = first
      }
      if (best === undefined) break
      if (tasks === undefined || tasks.has(best.envelope.task)) {
        deliveries.push(this.take(best, leaseMillis, now))
        continue
      }
      if (putAside === SET_ASIDE_LIMIT) {
        for (const message of firstOf(queues, tasks, max - deliveries.length)) {
          deliveries.push(this.take(message, leaseMillis, now))
        }
        break
      }
      best.queue.putAside(best)
      putAside++
    }
    // a worker that knows these tasks takes them; where the limit ended this claim, the next one continues
    if (putAside > 0) for (const queue of queues) queue.hint()
    const handles = [...deliveries.map(({ handle }) => handle), ...held.slice(max)]
    this.lastClaims.set(worker, { claimId, handles })
    return deliveries
  }

  /** Returns the tasks with messages that were set aside, and how long the oldest message of each has waited. */
  setAsideTasks(names: ReadonlyArray<string>, now: number): ReadonlyArray<SetAsideTask> {
    return names.flatMap((queue) =>
      Array.from(this.queues.get(queue)?.setAside ?? [], ([task, messages]) => {
        let since = now
        for (const { waitsSince } of messages) since = Math.min(since, waitsSince)
        return { queue, task, waitedMillis: now - since }
      }).slice(0, SET_ASIDE_TASKS)
    )
  }

  /** Claims messages of a task that were set aside, and that have waited long enough. */
  claimSetAside(claim: SetAsideClaim, now: number): ReadonlyArray<Delivery> {
    const found: Array<Message> = []
    for (const message of this.queues.get(claim.queue)?.setAside.get(claim.task) ?? []) {
      if (found.length === claim.max) break
      if (now - message.waitsSince >= claim.minWaitedMillis) found.push(message)
    }
    return found.map((message) => this.take(message, claim.leaseMillis, now))
  }

  renew(handle: string, leaseMillis: number, now: number): boolean {
    const message = this.claims.get(handle)
    if (message === undefined) return false
    message.wakeAt = now + leaseMillis
    message.queue.claim(message)
    return true
  }

  /** Removes a claimed message and returns whether it was there. */
  ack(handle: string): boolean {
    const message = this.claims.get(handle)
    if (message === undefined) return false
    this.remove(message)
    return true
  }

  release({ afterMillis, body, handle, preserveDueTime }: Release, now: number): void {
    const message = this.claims.get(handle)
    if (message === undefined) return
    this.dropClaim(message)
    if (body !== undefined) message.body = body
    message.wakeAt = message.dueAt = now + afterMillis
    if (preserveDueTime !== true) message.waitsSince = message.dueAt
    message.queue.put(message, now)
  }

  counts(name: string, now: number): QueueCounts {
    const [queue] = this.promoted([name], now)
    return queue?.counts(now) ?? EMPTY
  }

  /** Removes up to `limit` unclaimed messages of a queue, and returns them. */
  purge(name: string, limit: number, now: number): ReadonlyArray<PurgedMessage> {
    const purged: Array<PurgedMessage> = []
    for (const queue of this.promoted([name], now)) {
      while (purged.length < limit) {
        const [setAside] = queue.setAside.values()
        const message = queue.ready.peek() ?? queue.delayed.peek() ?? setAside?.peek()
        if (message === undefined) break
        this.remove(message)
        const { generation = 0, id, incarnation = "" } = message.envelope
        purged.push({ id, incarnation, generation })
      }
    }
    return purged
  }

  /** Removes the message of a task that is not due yet. */
  removeDelayed(id: string): void {
    for (const queue of this.queues.values()) {
      const message = queue.delayedOf(id)
      if (message !== undefined) this.remove(message)
    }
  }

  /** Returns the queues that exist, after what became due is made ready. */
  private promoted(names: ReadonlyArray<string>, now: number): ReadonlyArray<MemoryQueue> {
    const queues: Array<MemoryQueue> = []
    for (const name of new Set(names)) {
      const queue = this.queues.get(name)
      if (queue === undefined) continue
      queue.promote(now)
      queues.push(queue)
    }
    return queues
  }

  /** Returns the handles that the request repeated here took and still holds. */
  private heldBy({ claimId, isRetry, worker }: ClaimRequest): ReadonlyArray<string> {
    const last = this.lastClaims.get(worker)
    if (isRetry !== true || last === undefined || last.claimId !== claimId) return []
    return last.handles.filter((handle) => this.claims.has(handle))
  }

  private taskSet(tasks: ReadonlyArray<string> | undefined): ReadonlySet<string> | undefined {
    if (tasks === undefined) return undefined
    let set = this.taskSets.get(tasks)
    if (set === undefined) this.taskSets.set(tasks, (set = new Set(tasks)))
    return set
  }

  /** Claims a message that no other claim holds. */
  private take(message: Message, leaseMillis: number, now: number): Delivery {
    const handle = `${++this.claimed}`
    this.dropClaim(message)
    message.handle = handle
    this.claims.set(handle, message)
    return this.deliver(message, handle, leaseMillis, now)
  }

  private deliver(message: Message, handle: string, leaseMillis: number, now: number): Delivery {
    const { body, queue, waitsSince } = message
    const { generation, id, incarnation = "", task } = message.envelope
    message.wakeAt = now + leaseMillis
    queue.claim(message)
    return { handle, id, task, incarnation, generation, queue: queue.name, ageMillis: now - waitsSince, body }
  }

  private dropClaim(message: Message): void {
    if (message.handle !== undefined) this.claims.delete(message.handle)
    message.handle = undefined
  }

  private remove(message: Message): void {
    message.queue.remove(message)
    this.dropClaim(message)
  }
}
