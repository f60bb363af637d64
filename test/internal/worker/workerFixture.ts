/** A worker for one task on a memory fixture, and the payloads that its handler has received. */
import { Task, type Worker } from "chicory"
import { Effect, Schema } from "effect"
import * as MemoryFixture from "../../support/memoryFixture.ts"

export const Work = Task.make("work", { payload: { n: Schema.Number }, success: Schema.Number })

export interface Options extends MemoryFixture.Options {
  readonly worker?: Worker.Options
  /** Default: returns the number of its payload. */
  readonly handler?: (n: number) => Effect.Effect<number>
}

/** Makes the fixture; `start` starts the worker, which stops with the scope. */
export const make = Effect.fnUntraced(function* ({ handler = Effect.succeed, worker, ...options }: Options) {
  const fixture = yield* MemoryFixture.make({ hints: false, ...options })
  const ran: Array<number> = []
  return {
    fixture,
    ran,
    start: MemoryFixture.startWorker(
      fixture,
      Work,
      Work.toLayer(({ n }) =>
        Effect.suspend(() => {
          ran.push(n)
          return handler(n)
        })
      ),
      worker
    ),
    /** Enqueues a task under the given id. */
    enqueue: (id: string, n = 0) =>
      Effect.provideContext(Effect.asVoid(Work.delay({ n }, { id })), fixture.context),
    /** Enqueues that many tasks. */
    enqueueAll: (count: number) =>
      Effect.provideContext(
        Effect.asVoid(Work.delayAll(Array.from({ length: count }, (_, n) => ({ n })))),
        fixture.context
      ),
    /** The record of a task. */
    record: (id: string) =>
      Effect.map(Effect.orDie(fixture.driver.read([id])), ([record]) => {
        if (record === undefined) throw new Error(`no record of ${id}`)
        return record
      })
  }
})
