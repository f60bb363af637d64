/** The worker registry of the memory store. */
import type { Heartbeat, WorkerInfo } from "../BackendDriver.ts"

interface RegisteredWorker {
  readonly info: WorkerInfo
  /** When the registration expires unless another heartbeat comes. */
  readonly expiresAt: number
}

export class MemoryWorkers {
  private readonly byId = new Map<string, RegisteredWorker>()
  private readonly onDue: (at: number) => void

  /** `onDue` is called with the time when a registration is going to expire. */
  constructor(onDue: (at: number) => void) {
    this.onDue = onDue
  }

  /** The time when the first registration expires. */
  get nextDueAt(): number {
    let first = Infinity
    for (const { expiresAt } of this.byId.values()) first = Math.min(first, expiresAt)
    return first
  }

  heartbeat(worker: Heartbeat, ttlMillis: number, now: number): void {
    const known = this.byId.get(worker.id)
    const startedAt = known !== undefined && known.expiresAt > now ? known.info.startedAt : now
    const expiresAt = now + ttlMillis
    this.byId.set(worker.id, { info: { ...worker, startedAt, seenAt: now }, expiresAt })
    this.onDue(expiresAt)
  }

  unregister(id: string): void {
    this.byId.delete(id)
  }

  list(now: number): ReadonlyArray<WorkerInfo> {
    const workers: Array<WorkerInfo> = []
    for (const { expiresAt, info } of this.byId.values()) if (expiresAt > now) workers.push(info)
    return workers
  }

  /** Removes up to `limit` expired registrations, and returns how many. */
  sweep(limit: number, now: number): number {
    let swept = 0
    for (const [id, { expiresAt }] of this.byId) {
      if (swept === limit) break
      if (expiresAt > now) continue
      this.byId.delete(id)
      swept++
    }
    return swept
  }
}
