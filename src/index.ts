/**
 * Typed background tasks with durable, awaitable results, for Effect.
 *
 * @since 0.1.0
 * @module chicory
 */
export * as AsyncResult from "./AsyncResult.ts"
export * as Backend from "./Backend.ts"
export * as Broker from "./Broker.ts"
export * as DeadLetters from "./DeadLetters.ts"
export * as MemoryStore from "./memory/MemoryStore.ts"
export * as RetryPolicy from "./RetryPolicy.ts"
export * as Task from "./Task.ts"
export * as TaskContext from "./TaskContext.ts"
export * as TaskFailed from "./TaskFailed.ts"
export * as TaskResult from "./TaskResult.ts"
export { TaskState } from "./TaskState.ts"
export * as Tracing from "./Tracing.ts"
export * as Worker from "./Worker.ts"
