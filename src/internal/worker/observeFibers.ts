/**
 * Observes the fibers of handlers by two services that Effect's runtime calls: the one that records the start and the end
 * of fibers, and the scheduler, which it asks before every operation.
 */
import { Context, type Exit, Fiber, Metric, Scheduler } from "effect"
import { CurrentRun } from "../task/CurrentRun.ts"

/** A fiber of any type. */
export type AnyFiber = Fiber.Fiber<unknown, unknown>

/**
 * Fibers that have forked others, with the number of the operation that did. The entry is removed when the fiber resumes
 * after it was suspended, from where its operations are numbered anew.
 */
export type Forks = Map<AnyFiber, number>

/** Whether a fiber is suspended in the operation that forked others, and so waits for them. */
export const awaitsForked = (fiber: AnyFiber, forks: Forks): boolean =>
  forks.get(fiber) === fiber.currentOpCount &&
  fiber.pollUnsafe() === undefined &&
  // otherwise nothing tells when it resumes
  fiber.cache.scheduler instanceof ObservingScheduler &&
  !fiber.cache.preventYield

class ObservingScheduler implements Scheduler.Scheduler {
  readonly executionMode: "sync" | "async"
  private readonly scheduler: Scheduler.Scheduler
  private readonly forks: Forks

  constructor(scheduler: Scheduler.Scheduler, forks: Forks) {
    this.executionMode = scheduler.executionMode
    this.scheduler = scheduler
    this.forks = forks
  }

  shouldYield(fiber: AnyFiber): boolean {
    if (fiber.currentOpCount === 1 && this.forks.size > 0) this.forks.delete(fiber)
    return this.scheduler.shouldYield(fiber)
  }

  makeDispatcher(): Scheduler.SchedulerDispatcher {
    return this.scheduler.makeDispatcher()
  }
}

class ObservingMetrics implements Metric.FiberRuntimeMetricsService {
  private readonly metrics: Metric.FiberRuntimeMetricsService | undefined

  constructor(metrics: Metric.FiberRuntimeMetricsService | undefined) {
    this.metrics = metrics
  }

  readonly recordFiberStart = (context: Context.Context<never>): void => {
    this.metrics?.recordFiberStart(context)
    Context.get(context, CurrentRun)?.onFiberStart(Fiber.getCurrent())
  }

  readonly recordFiberEnd = (context: Context.Context<never>, exit: Exit.Exit<unknown, unknown>): void => {
    this.metrics?.recordFiberEnd(context, exit)
    Context.get(context, CurrentRun)?.onFiberEnd()
  }
}

/** Returns a context whose fibers report to the run in their context, beside what the context does already. */
export const observed = <R>(context: Context.Context<R>, forks: Forks): Context.Context<R> =>
  context.pipe(
    Context.add(
      Metric.FiberRuntimeMetrics,
      new ObservingMetrics(Context.get(context, Metric.FiberRuntimeMetrics))
    ),
    Context.add(Scheduler.Scheduler, new ObservingScheduler(Context.get(context, Scheduler.Scheduler), forks))
  )
