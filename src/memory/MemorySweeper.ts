/** Sweeps the memory store when something of it is due, and at no other time. */
import { Clock, Effect, type Scope } from "effect"
import { Deadline, type Deadlines, deadlinesOf } from "../internal/concurrency/Deadlines.ts"

/** Where the sweeper runs. */
interface Running {
  readonly clock: Clock.Clock
  readonly deadlines: Deadlines
}

export class MemorySweeper extends Deadline {
  private readonly sweep: (now: number) => number
  private running: Running | undefined
  /** Epoch milliseconds of the next sweep. */
  private sweepsAt = Infinity

  /** `sweep` returns when something is due next; `Infinity`: nothing is. */
  constructor(sweep: (now: number) => number) {
    super()
    this.sweep = sweep
  }

  /** Runs until the scope closes, by the clock of the fiber. */
  readonly run: Effect.Effect<void, never, Scope.Scope> = Effect.acquireRelease(
    Effect.withFiber((fiber) =>
      Effect.sync(() => {
        this.running = { clock: fiber.getRef(Clock.Clock), deadlines: deadlinesOf(fiber) }
        this.onDeadline()
      })
    ),
    () =>
      Effect.sync(() => {
        this.running?.deadlines.clear(this)
        this.running = undefined
      })
  )

  /** Called when something is going to be due: the next sweep is not later than that. */
  sweepBy(at: number): void {
    if (this.running === undefined || at >= this.sweepsAt) return
    const { clock, deadlines } = this.running
    this.sweepsAt = at
    deadlines.set(this, Math.max(1, at - clock.currentTimeMillisUnsafe()))
  }

  onDeadline(): void {
    if (this.running === undefined) return
    this.sweepsAt = Infinity
    this.sweepBy(this.sweep(this.running.clock.currentTimeMillisUnsafe()))
  }
}
