/**
 * Measures for how long the event loop of the process is blocked while a worker has runs. Meanwhile no lease is renewed, so
 * that a block tells a lease that was lost in this process from one that the store lost.
 *
 * The measure is how late a timer of a ninth of the lease fires, by the monotonic clock: a block is found up to a ninth of
 * the lease shorter than it was. A process that stood still, as a suspended one, counts as blocked.
 */
import { Duration, Effect, type Latch } from "effect"
import * as workerLog from "./workerLog.ts"

/** Between two warnings of blocks, in nanoseconds. */
const WARN_AGAIN = 60_000_000_000n

const seconds = (nanos: bigint): string => `${(Number(nanos) / 1e9).toFixed(1)} s`

/** The event loop, as the runs of one worker depend on it. Times are nanoseconds of its monotonic clock. */
export class EventLoop {
  private readonly leaseMillis: number
  private readonly leaseNanos: bigint
  private readonly intervalNanos: bigint
  /** When `watch` is to go on: at once after the first of several runs was added, and then after each interval. */
  private dueAt: bigint | undefined
  private isSleeping = false
  /** The longest block of late, and when it ended. */
  private longest = 0n
  private endedAt = 0n
  private warnedAt: bigint | undefined

  constructor(leaseMillis: number) {
    this.leaseMillis = leaseMillis
    this.leaseNanos = BigInt(leaseMillis) * 1_000_000n
    this.intervalNanos = BigInt(Math.max(1, Math.round(leaseMillis / 9))) * 1_000_000n
  }

  /** Notes that a worker without runs has one, which wakes `watch`. */
  onFirstRun(now: bigint): void {
    if (!this.isSleeping) this.dueAt = now
  }

  /** Returns why a lease was lost that was renewed last at `since`, if the event loop was blocked for most of it since. */
  blockedSince(since: bigint, now: bigint): string | undefined {
    const current = this.dueAt === undefined ? 0n : now - this.dueAt
    const past = this.endedAt - since < this.longest ? this.endedAt - since : this.longest
    const blocked = current > past ? current : past
    // a shorter one leaves time for a renewal, which is sent at every third of the lease
    if (blocked * 2n <= this.leaseNanos) return undefined
    const lease = `the lease of ${this.leaseMillis / 1000} s`
    return blocked < this.leaseNanos
      ? `the event loop was blocked for ${seconds(blocked)} of ${lease}`
      : `the event loop was blocked for ${seconds(blocked)}, longer than ${lease}`
  }

  /** Measures while there are runs, and warns of blocks. Does not end. */
  watch(worker: {
    readonly now: () => bigint
    readonly hasRuns: Latch.Latch
    readonly runs: { readonly size: number }
  }): Effect.Effect<never> {
    const interval = Duration.nanos(this.intervalNanos)
    const turn = Effect.suspend(() => this.onTurn(worker.now()))
    const sleep = Effect.suspend(() => {
      this.isSleeping = true
      this.dueAt = worker.now() + this.intervalNanos
      return Effect.sleep(interval)
    })
    const step = Effect.andThen(sleep, turn)
    const whileRunning = Effect.whileLoop({
      while: () => worker.runs.size > 0,
      body: () => step,
      step: () => undefined
    })
    // one step at least, so that a worker that runs one task at a time does not wake this fiber for each of them
    return worker.hasRuns.await.pipe(
      Effect.andThen(turn),
      Effect.andThen(step),
      Effect.andThen(whileRunning),
      Effect.forever
    )
  }

  private onTurn(now: bigint): Effect.Effect<void> {
    const blocked = this.dueAt === undefined ? 0n : now - this.dueAt
    this.isSleeping = false
    this.dueAt = undefined
    if (blocked >= this.longest || now - this.endedAt > this.leaseNanos) {
      this.longest = blocked
      this.endedAt = now
    }
    if (blocked * 3n <= this.leaseNanos) return Effect.void
    if (this.warnedAt !== undefined && now - this.warnedAt < WARN_AGAIN) return Effect.void
    this.warnedAt = now
    return workerLog.loopBlocked(seconds(blocked), this.leaseMillis)
  }
}
