/** What the parts of a worker share: its settings, its runs, and what it has counted. */
import { hostname } from "node:os"
import { Clock, type Context, Duration, Effect, Latch } from "effect"
import type { Backend } from "../../Backend.ts"
import type { Broker } from "../../Broker.ts"
import type { Batch } from "../../BrokerDriver.ts"
import { ChurnMap } from "../concurrency/ChurnMap.ts"
import { WaitGroup } from "../concurrency/WaitGroup.ts"
import * as metrics from "../metrics.ts"
import type { HandledTask } from "../task/TaskDefinition.ts"
import * as TaskId from "../task/TaskId.ts"
import { type Run, type RunnableTask, toRunnableTask } from "./Run.ts"
import { makeRunStore, type RunStore } from "./RunStore.ts"
import { Slots } from "./slots.ts"
import { startDefaults } from "./startDefaults.ts"

/** A worker's settings, checked. */
export interface WorkerSettings {
  readonly backend: Backend["Service"]
  readonly broker: Broker["Service"]
  readonly tasks: ReadonlyMap<string, HandledTask>
  readonly queues: Batch<string>
  readonly concurrency: number
  readonly lease: Duration.Duration
  readonly drainTimeout: Duration.Duration
  readonly heartbeat: Duration.Duration
  readonly unknownTaskGrace: Duration.Duration
}

/** A worker that runs. */
export class WorkerState {
  readonly settings: WorkerSettings
  readonly hostname = hostname()
  readonly id: string
  readonly leaseMillis: number
  readonly runStore: RunStore
  readonly slots: Slots
  /** The tasks that this worker knows, by name. */
  readonly tasks: ReadonlyMap<string, RunnableTask>
  /** What runs here, by task id. */
  readonly runs = new ChurnMap<string, Run>()
  /** Deliveries that were claimed and not yet let go, and whatever else the drain waits for. */
  readonly inFlight = new WaitGroup()
  /** Runs that have ended and given up their slots, whose outcomes or messages are still on their way. */
  settlingRuns = 0
  readonly stats = { succeeded: 0, failed: 0, retried: 0 }
  /** The drain is over: what cannot be stored now is left to its lease. */
  drainExpired = false
  /** Open when `givingUp`. */
  readonly drainExpiry = Latch.makeUnsafe(false)
  readonly clock: Clock.Clock
  readonly context: Context.Context<never>
  private tokens = 0
  private claims = 0

  constructor(settings: WorkerSettings, clock: Clock.Clock, context: Context.Context<never>) {
    const { backend, broker, concurrency, lease, tasks } = settings
    this.settings = settings
    this.clock = clock
    this.context = context
    this.id = `${this.hostname}-${process.pid}-${TaskId.make(clock.currentTimeMillisUnsafe()).slice(-12)}`
    this.leaseMillis = Math.max(1, Math.round(Duration.toMillis(lease)))
    this.runStore = makeRunStore(backend, broker, startDefaults(tasks, backend, this.leaseMillis))
    this.slots = new Slots(concurrency)
    this.tasks = new Map(Array.from(tasks, ([name, known]) => [name, toRunnableTask(known, context)]))
  }

  /** Runs an effect for which the drain waits. */
  fork(effect: Effect.Effect<void>): void {
    this.inFlight.add()
    Effect.runForkWith(this.context)(effect).addObserver(this.ended)
  }

  private readonly ended = () => this.inFlight.done()

  /** A token that no other run has. */
  nextToken(): string {
    return `${this.id}/${++this.tokens}`
  }

  /** A name that no other claim has. */
  nextClaimId(): string {
    return `${this.id.slice(-12)}.${++this.claims}`
  }

  /** Takes in a run. One of the same task that is still here was superseded by it. */
  addRun(run: Run): void {
    this.runs.get(run.id)?.interrupt("Lost")
    this.runs.set(run.id, run)
    if (this.drainExpired) run.interrupt("Drained")
  }

  /** Forgets a run that has ended. */
  removeRun(run: Run): void {
    if (this.runs.get(run.id) === run) this.runs.delete(run.id)
  }

  /** Ends the drain. */
  expireDrain(): void {
    this.drainExpired = true
    this.drainExpiry.openUnsafe()
  }

  /** Monotonic nanoseconds of this process. */
  now(): bigint {
    return this.clock.monotonicTimeNanosUnsafe()
  }

  queueMetrics(queue: string): ReturnType<typeof metrics.forQueue> {
    return metrics.forQueue(this.settings.broker.name, queue)
  }
}

/** Makes the worker of a worker. */
export const make = (settings: WorkerSettings): Effect.Effect<WorkerState> =>
  Effect.withFiber((fiber) =>
    Effect.sync(() => new WorkerState(settings, fiber.getRef(Clock.Clock), fiber.context))
  )
