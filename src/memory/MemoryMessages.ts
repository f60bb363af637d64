/** The messages of the memory store, by queue and by claim. */
import type {
  ClaimRequest,
  Delivery,
  Envelope,
  PurgedMessage,
  QueueCounts,
  Release
} from "../BrokerDriver.ts"
import { isClaimedBefore, MemoryQueue, type Message } from "./MemoryQueue.ts"

/** The last claim of a worker, for the request that repeats it. */
interface LastClaim {
  readonly claimId: string | undefined
  readonly handles: ReadonlyArray<string>
}

const EMPTY: QueueCounts = { ready: 0, delayed: 0, claimed: 0 }

export class MemoryMessages {
  private readonly queues = new Map<string, MemoryQueue>()
  /** Messages by the handle of their last claim. */
  private readonly claims = new Map<string, Message>()
  private readonly lastClaims = new Map<string, LastClaim>()
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
    while (deliveries.length < max) {
      let best: Message | undefined
      for (const { ready } of queues) {
        const first = ready.peek()
        if (first !== undefined && (best === undefined || isClaimedBefore(first, best))) best = first
      }
      if (best === undefined) break
      const handle = `${++this.claimed}`
      this.dropClaim(best)
      best.handle = handle
      this.claims.set(handle, best)
      deliveries.push(this.deliver(best, handle, leaseMillis, now))
    }
    const handles = [...deliveries.map(({ handle }) => handle), ...held.slice(max)]
    this.lastClaims.set(worker, { claimId, handles })
    return deliveries
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
    return queue?.counts ?? EMPTY
  }

  /** Removes up to `limit` unclaimed messages of a queue, and returns them. */
  purge(name: string, limit: number, now: number): ReadonlyArray<PurgedMessage> {
    const purged: Array<PurgedMessage> = []
    for (const queue of this.promoted([name], now)) {
      while (purged.length < limit) {
        const message = queue.ready.peek() ?? queue.delayed.peek()
        if (message === undefined) break
        this.remove(message)
        const { generation = 0, id, incarnation = "" } = message.envelope
        purged.push({ id, incarnation, generation })
      }
      queue.hint()
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
