/** The worker registry of the memory store. */
import type { Heartbeat, WorkerInfo } from "../BackendDriver.ts"

interface RegisteredWorker {
  readonly info: WorkerInfo
  /** When the registration expires unless another heartbeat comes. */
  readonly expiresAt: number
}

export class MemoryWorkers {
  private readonly byId = new Map<string, RegisteredWorker>()

  heartbeat(worker: Heartbeat, ttlMillis: number, now: number): void {
    const known = this.byId.get(worker.id)
    const startedAt = known !== undefined && known.expiresAt > now ? known.info.startedAt : now
    this.byId.set(worker.id, { info: { ...worker, startedAt, seenAt: now }, expiresAt: now + ttlMillis })
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
