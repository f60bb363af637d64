/** The state that the parts of a worker share: its settings, its runs, and its counts. */
import { hostname } from "node:os"
import { Clock, type Context, Duration, Effect, Latch, type Option } from "effect"
import type { Backend } from "../../Backend.ts"
import type { WorkerInfo } from "../../BackendDriver.ts"
import type { Broker } from "../../Broker.ts"
import type { Batch } from "../../BrokerDriver.ts"
import { ChurnMap } from "../concurrency/ChurnMap.ts"
import { WaitGroup } from "../concurrency/WaitGroup.ts"
import { maxBytesOf } from "../driver/maxBytesOf.ts"
import * as metrics from "../metrics.ts"
import type { HandledTask } from "../task/TaskDefinition.ts"
import * as TaskId from "../task/TaskId.ts"
import { annotateDelivery } from "./annotateDelivery.ts"
import { EventLoop } from "./eventLoop.ts"
import { WorkerHealth } from "./health.ts"
import type { Forks } from "./observeFibers.ts"
import { type Run, type RunnableTask, toRunnableTask } from "./Run.ts"
import { makeRunStore, type RunStore } from "./RunStore.ts"
import { Slots } from "./slots.ts"
import { startDefaults } from "./startDefaults.ts"
import { WorkerEvents } from "./WorkerEvents.ts"
import { type LoggedLevels, loggedLevels, supersededHere, withWorkerAnnotation } from "./workerLog.ts"

/** The checked settings of a worker. */
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

/** How long a list of the live workers is used: many messages may need one at the same time. */
const LIVE_WORKERS_TTL = Duration.seconds(1)

/** The state of a running worker. */
export class WorkerState {
  readonly settings: WorkerSettings
  readonly hostname = hostname()
  readonly id: string
  readonly leaseMillis: number
  readonly runStore: RunStore
  readonly slots: Slots
  /** The fibers of handlers that wait for fibers that they forked. */
  readonly forks: Forks = new Map()
  /** The tasks that this worker runs, by name. */
  readonly tasks: ReadonlyMap<string, RunnableTask>
  /** The names of these tasks, for stores that claim by task. */
  readonly claimedTasks: ReadonlyArray<string> | undefined
  /** The open runs of this worker, by task id. */
  readonly runs = new ChurnMap<string, Run>()
  /** Open while there are open runs. */
  readonly hasRuns = Latch.makeUnsafe(false)
  /** Open when messages may have been set aside since they were listed, where the store loses no hint. */
  readonly setAsideChanged = Latch.makeUnsafe(true)
  /** Everything that the drain waits for: deliveries that are neither acked nor released, and what `fork` runs. */
  readonly inFlight = new WaitGroup()
  /** Ended runs that have freed their slots, and whose outcomes or messages are still on their way. */
  settlingRuns = 0
  readonly stats = { succeeded: 0, failed: 0, retried: 0 }
  readonly health: WorkerHealth
  readonly eventLoop: EventLoop
  /** The drain timeout is over: what cannot be stored now is left to its lease. */
  drainExpired = false
  /** Open when `drainExpired`. */
  readonly drainExpiry = Latch.makeUnsafe(false)
  readonly clock: Clock.Clock
  /** The context of what `fork` runs: that of the layer, without spans and with the id of the worker in log lines. */
  readonly context: Context.Context<never>
  /** The registry of workers, at most a second old; `None` where it cannot be read. */
  readonly liveWorkers: Effect.Effect<Option.Option<ReadonlyArray<WorkerInfo>>>
  readonly events = new WorkerEvents()
  /** Which levels are logged. */
  readonly logs: LoggedLevels
  private tokens = 0
  private claims = 0

  constructor(
    settings: WorkerSettings,
    clock: Clock.Clock,
    context: Context.Context<never>,
    handlers: Context.Context<never>,
    liveWorkers: WorkerState["liveWorkers"]
  ) {
    const { backend, broker, concurrency, lease, tasks } = settings
    this.settings = settings
    this.clock = clock
    this.liveWorkers = liveWorkers
    this.id = `${this.hostname}-${process.pid}-${TaskId.make(clock.currentTimeMillisUnsafe()).slice(-12)}`
    this.context = withWorkerAnnotation(context, this.id)
    this.logs = loggedLevels(context)
    this.leaseMillis = Math.max(1, Math.round(Duration.toMillis(lease)))
    this.runStore = makeRunStore(backend, broker, startDefaults(tasks, backend, this.leaseMillis))
    this.slots = new Slots(concurrency)
    this.eventLoop = new EventLoop(this.leaseMillis)
    this.health = new WorkerHealth(
      Duration.toMillis(settings.heartbeat),
      this.runStore.hasRecords,
      broker.outages
    )
    this.claimedTasks = broker.setAside && [...tasks.keys()]
    const maxBytes = maxBytesOf(backend)
    this.tasks = new Map(
      Array.from(tasks, ([name, task]) => [
        name,
        toRunnableTask(task, handlers, this.forks, broker.name, maxBytes)
      ])
    )
  }

  /** Runs an effect in a fiber that the drain waits for. */
  fork(effect: Effect.Effect<void>): void {
    this.inFlight.add()
    Effect.runForkWith(this.context)(effect).addObserver(this.onEnd)
  }

  private readonly onEnd = () => this.inFlight.done()

  /** Returns a token that no other run has. */
  nextToken(): string {
    return `${this.id}/${++this.tokens}`
  }

  /** Returns an id that no other claim has. */
  nextClaimId(): string {
    return `${this.id.slice(-12)}.${++this.claims}`
  }

  /** Adds a run, at the monotonic time `now`. It supersedes a run of the same task that is still here. */
  addRun(run: Run, now: bigint): void {
    const older = this.runs.get(run.id)
    if (older !== undefined) this.supersede(older, now)
    if (this.runs.size === 0) this.eventLoop.onFirstRun(now)
    this.runs.set(run.id, run)
    this.hasRuns.openUnsafe()
    if (this.drainExpired) run.interrupt("Drained")
  }

  private supersede(run: Run, now: bigint): void {
    if (run.interruptReason === "Lost") return
    run.interrupt("Lost")
    const { delivery, start } = run.candidate
    const why = this.eventLoop.blockedSince(run.renewedAt, now)
    this.fork(supersededHere(start.token, why).pipe(annotateDelivery(delivery, run.started.attempt)))
  }

  /** Removes an ended run. */
  removeRun(run: Run): void {
    if (this.runs.get(run.id) !== run) return
    this.runs.delete(run.id)
    if (this.runs.size === 0) this.hasRuns.closeUnsafe()
  }

  /** Ends the drain: calls that are still retried make one last attempt. */
  expireDrain(): void {
    this.drainExpired = true
    this.drainExpiry.openUnsafe()
  }

  /** Returns the monotonic nanoseconds of this process. */
  now(): bigint {
    return this.clock.monotonicTimeNanosUnsafe()
  }

  queueMetrics(queue: string): ReturnType<typeof metrics.forQueue> {
    return metrics.forQueue(this.settings.broker.name, queue)
  }

  /** Counts a dead letter that no run of a handler has written; `undefined`: of a message that names no task. */
  countDeadLetter(task: string | undefined): void {
    const known = task === undefined ? undefined : this.tasks.get(task)
    const counter = known?.metrics.deadLetters ?? metrics.deadLettersOf(this.settings.broker.name, task)
    counter.updateUnsafe(1, this.context)
  }
}

/** Makes the state of a worker; `handlers` is the context that its handlers start from. */
export const make = (
  settings: WorkerSettings,
  handlers: Context.Context<never>
): Effect.Effect<WorkerState> =>
  Effect.flatMap(
    Effect.cachedWithTTL(Effect.option(settings.backend.workers), LIVE_WORKERS_TTL),
    (liveWorkers) =>
      Effect.withFiber((fiber) =>
        Effect.sync(
          () => new WorkerState(settings, fiber.getRef(Clock.Clock), fiber.context, handlers, liveWorkers)
        )
      )
  )
